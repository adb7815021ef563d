//! End-to-end tests on clusters with Arpeggio installed. Each can be run alone and read alone; some share a cluster when
//! they are run together.
//!
//! `make scenarios ONLY=NAME` runs those whose names contain NAME. When one fails, everything that is known about it is
//! written below `target/lab`. `make test` runs [`QUICK`], `make test-all` the others, too.

#![forbid(unsafe_code)]

mod allocation;
mod bad_input;
mod busy;
mod chart;
mod clients;
mod commands;
mod connections;
mod controllers;
mod definitions;
mod doctor;
mod drill;
mod failover;
mod families;
mod faults;
mod floods;
mod formats;
mod ingress;
mod install_file;
mod ipv6;
mod kafka;
mod kept;
mod leftovers;
mod machines;
mod many;
mod migration;
mod monitoring;
mod moves;
mod neighbour;
mod neighbourhood;
mod newcomer;
mod oldest;
mod others;
mod own_addresses;
mod rebalance;
mod records;
mod restarts;
mod runner;
mod segments;
mod service_types;
mod setups;
mod slow_links;
mod spread;
mod strangers;
mod streams;
mod traffic;
mod unseen;
mod variants;
mod versions;
mod writes;

use std::process::ExitCode;

use arpeggio_lab::{Families, ProxyMode, guard};

use self::runner::{Cluster, NODES, Scenario, Shape, Trial};

/// One or two for each part of Arpeggio, so that `make test` takes minutes.
const QUICK: &[&str] = &[
    "annotations",
    "announce-nodes",
    "b-fritzbox",
    "bad-input",
    "commands",
    "delete",
    "drill",
    "fault-drain",
    "fault-power",
    "fault-upgrade",
    "helm",
    "ipv6-first",
    "local-policy",
    "metallb",
    "monitoring",
    "no-pool",
    "occupied",
    "refused",
    "tenants",
];

/// Beside those whose names begin with `fault`: they judge by time, so only one other runs meanwhile.
const TIMED: &[&str] = &[
    "a-haproxy",
    "b-fritzbox",
    "b-fritzbox-ipv4",
    "b-fritzbox-ipv6",
    "c-gateway",
    "d-kafka",
    "d-kafka-shared",
    "dead-connections",
    "doctor-wire",
    "drill",
    "failover",
    "frames-at-rest",
    "h-many",
    "helm",
    "ipv6-failover",
    "keep-connections",
    "keep-iptables",
    "keep-without-api",
    "leader-power-cut",
    "local-upgrade",
    "new-mac",
    "profiles",
    "rebalance",
    "spread",
    "spread-iptables",
    "streams",
    "traffic",
    "two-versions",
];

/// Of those, the ones that keep the machine busy.
const LOUD: &[&str] = &["d-kafka", "d-kafka-shared", "fault-flood"];

/// Those that leave nothing but what [`Home::sweep`] removes: when several are run, they share a cluster.
const SHARING: &[(&str, Scenario)] = &[
    ("no-pool", allocation::without_a_pool_a_service_waits_and_says_why),
    ("annotations", allocation::every_spelling_of_the_annotation_names_the_pool),
    ("delete", allocation::a_deleted_service_leaves_nothing),
    ("leftovers", leftovers::a_status_that_lists_nodes_is_replaced),
    ("tenants", neighbourhood::tenants_learn_nothing_of_each_other),
    ("held-by-others", others::what_others_hold_on_to_is_dealt_with),
    ("rival", neighbourhood::a_rival_is_named_and_costs_little),
    ("replaced", neighbourhood::a_replaced_service_keeps_its_address),
    ("terminating", neighbourhood::a_service_that_cannot_go_keeps_its_address),
    ("namespaces", unseen::namespaces_come_and_go),
    ("expired-watch", unseen::what_the_api_server_has_forgotten_is_seen),
    ("refused", neighbourhood::what_the_api_server_refuses_is_told),
    ("busy-api", busy::a_busy_api_server_is_told_and_asked_seldom),
    ("report", commands::a_report_holds_no_secrets),
    ("profiles", commands::status_says_how_nodes_are_asked),
    ("frames-at-rest", commands::nodes_at_rest_say_little),
    ("permissions", neighbourhood::permissions_are_what_the_docs_say),
    ("forbidden", neighbourhood::a_missing_permission_is_named),
    ("speaker-token", neighbourhood::a_speakers_token_is_good_for_its_own_node),
    ("changed-request", leftovers::a_changed_request_moves_the_service),
    ("exchange", leftovers::services_exchange_their_addresses),
    ("no-sharing", allocation::two_services_never_share),
    ("left-alone", allocation::what_is_not_ours_is_left_alone),
    ("bad-input", bad_input::bad_pools_are_refused_or_marked_and_the_rest_goes_on),
    ("surroundings", records::what_the_network_needs_itself_is_never_given_out),
    ("damaged-locks", records::damage_is_mended_and_a_newer_release_left_alone),
    ("commands", commands::the_speakers_pod_answers_a_users_questions),
    ("fault-drain", moves::a_drained_node_hands_over_first),
    ("local-policy", moves::an_address_stays_with_the_pods_that_its_traffic_is_for),
    ("no-candidate", moves::who_has_no_node_left_is_told_why),
    ("announce-nodes", moves::a_pools_rules_say_which_node_announces),
    ("fault-exclusion", moves::an_excluded_node_hands_over_and_the_last_one_stays),
    // The kubelet waits ten seconds before it starts a container again that has ended twice. So the upgrade, which brings
    // new pods, is between these two.
    ("fault-killed", restarts::a_killed_speaker_comes_back_and_nothing_moves),
    ("local-upgrade", restarts::new_speakers_wait_until_they_know_the_backends),
    ("fault-upgrade", restarts::new_speakers_take_nothing_and_miss_nothing),
    ("fault-stopped", restarts::a_stopped_speaker_hands_over_first),
    // A node that boots forgets how often its containers have ended.
    ("fault-power", machines::the_owner_loses_power_and_returns),
];

/// Those that leave a cluster that [`Home::renew`] makes as new: machines without power, cut cables, changed speakers. They
/// share clusters, too.
const RENEWED: &[(&str, Scenario)] = &[
    ("dual-stack", families::both_addresses_of_a_service_are_on_one_node),
    ("ipv6-doubts", ipv6::a_clients_doubts_are_answered),
    ("ipv6-duplicate", ipv6::nobody_can_take_an_announced_address),
    ("occupied", strangers::somebody_elses_address_is_never_announced),
    ("occupied-ipv6", strangers::somebody_elses_ipv6_address_is_never_announced),
    ("fault-intruder", strangers::a_stranger_that_takes_the_address_changes_little),
    ("fault-flood", floods::a_flood_of_frames_ends_no_session),
    ("fault-slow-link", slow_links::a_slow_link_gets_patience),
    ("fault-occupied", strangers::who_wants_a_strangers_address_is_told),
    ("quarantine", records::an_address_that_a_stranger_has_is_replaced),
    ("announce-terms", records::locks_say_where_their_addresses_are_announced),
    ("writes", writes::an_allocation_costs_two_writes_and_rest_costs_none),
    ("fault-cable", faults::the_owners_cable_is_pulled_and_put_back),
    ("fault-api-cut", faults::the_owner_is_cut_off_from_the_api_server_only),
    ("fault-api-away", faults::the_api_server_is_away_for_a_minute),
    ("fault-api-and-power", machines::the_owner_loses_power_while_the_api_server_is_away),
    ("fault-frozen", faults::the_owners_speaker_is_stopped_and_continued),
    ("fault-leases-gone", faults::all_leases_are_deleted_by_hand),
    ("fault-leases-old", faults::leases_are_put_back_to_an_earlier_time),
    ("fault-standstill", machines::the_owner_stands_still_and_goes_on),
    ("fault-clock", faults::the_owners_clock_jumps),
    ("fault-lost-unicast", faults::a_switch_loses_what_two_nodes_send_to_each_other),
    ("fault-split", faults::the_segment_is_split_and_healed),
    ("leader-stopped", controllers::a_leader_that_is_asked_to_stop_hands_over_at_once),
    ("two-controllers", controllers::two_controllers_at_once_give_no_address_twice),
    ("controller-killed", restarts::a_killed_controller_keeps_every_address),
    ("failover", failover::an_address_outlives_its_node),
    ("ipv6-failover", ipv6::an_ipv6_address_outlives_its_node),
    ("rebalance", rebalance::addresses_are_spread_again_when_somebody_says_so),
    ("new-mac", faults::a_node_gets_another_mac_address),
];

/// Those that get a cluster of their own: they install more than a Service, or change what cannot be put right.
const SCENARIOS: &[(&str, Scenario)] = &[
    ("c-gateway", ingress::gateways_are_behind_the_address_that_was_asked_for),
    ("c-minikube", service_types::only_load_balancers_are_served),
    ("h-many", many::a_thousand_are_served_like_ten),
    ("node-address", own_addresses::a_nodes_own_address_is_neither_given_nor_announced),
    ("named-interface", segments::an_interface_without_an_address_announces_by_its_name),
    ("intruder", strangers::an_announced_address_is_defended),
    ("intruder-ipv6", strangers::an_announced_ipv6_address_is_defended),
    ("drill", drill::a_failover_is_rehearsed_on_a_living_cluster),
    ("leader-power-cut", controllers::a_follower_takes_over_when_the_leader_has_no_power),
    ("dead-connections", controllers::controllers_find_out_that_their_connections_are_dead),
    ("traffic", traffic::all_kinds_of_traffic_outlive_a_move),
    ("migration", migration::services_keep_the_addresses_that_metallb_gave_them),
    ("config-map", formats::a_config_map_declares_pools),
    ("no-definition", definitions::without_the_definition_pools_stand_in_a_config_map),
    ("two-installations", definitions::of_two_installations_one_decides),
    ("not-understood", definitions::an_object_that_is_not_understood_disables_itself),
    ("metallb", formats::metallb_s_objects_are_read_as_they_are),
    ("doctor-wire", doctor::each_fault_of_the_segment_has_its_code),
    ("fault-etcd-restored", faults::etcd_is_restored_from_a_backup),
    ("two-versions", versions::two_releases_work_together),
    ("streams", streams::long_connections_on_any_segment),
    ("monitoring", monitoring::prometheus_sees_faults_and_their_end),
];

/// Those in clusters of another shape.
const SHAPED: &[(&str, Shape, Scenario)] = &[
    ("a-haproxy", Shape::Nodes(2), setups::haproxy_sends_the_clusters_names_to_one_address),
    ("b-fritzbox", Shape::Nodes(NODES), setups::one_port_forward_leads_to_everything),
    (
        "b-fritzbox-ipv4",
        Shape::Families(Families::Ipv4Only),
        setups::one_port_forward_leads_to_everything,
    ),
    (
        "b-fritzbox-ipv6",
        Shape::Families(Families::Ipv6Only),
        setups::one_port_forward_leads_to_everything,
    ),
    ("d-kafka", Shape::Nodes(4), kafka::each_broker_has_an_address),
    ("d-kafka-shared", Shape::Nodes(NODES), kafka::all_brokers_share_an_address),
    ("e-models-nftables", Shape::Proxy(ProxyMode::Nftables), setups::pods_see_whom_the_policy_says),
    ("e-models-iptables", Shape::Proxy(ProxyMode::Iptables), setups::pods_see_whom_the_policy_says),
    ("fault-two-nodes", Shape::Nodes(2), machines::one_of_two_nodes_loses_power),
    ("fault-one-node", Shape::Nodes(1), machines::the_only_node_restarts),
    ("fault-all-power", Shape::Nodes(5), machines::everything_boots_after_a_power_cut),
    (
        "fault-control-plane",
        Shape::ControlOnNode,
        machines::the_control_plane_node_which_is_the_owner_loses_power,
    ),
    (
        "ipv6-only",
        Shape::Families(Families::Ipv6Only),
        families::a_cluster_without_ipv4_is_served_like_any_other,
    ),
    (
        "ipv6-first",
        Shape::Families(Families::Ipv6First),
        families::where_ipv6_is_first_services_get_it_first,
    ),
    (
        "install-file",
        Shape::WithoutArpeggio,
        install_file::one_file_installs_removes_and_installs_again,
    ),
    ("newcomer", Shape::WithoutArpeggio, newcomer::the_pages_lead_to_a_service_that_answers),
    ("helm", Shape::WithoutArpeggio, chart::the_chart_installs_upgrades_and_goes),
    ("keep-connections", Shape::WithoutArpeggio, connections::moves_break_no_connection),
    (
        "keep-iptables",
        Shape::Proxy(ProxyMode::Iptables),
        connections::moves_break_no_connection_with_iptables,
    ),
    ("keep-without-api", Shape::WithoutArpeggio, connections::connections_need_no_api_server),
    ("spread", Shape::WithoutArpeggio, spread::all_nodes_serve_one_address),
    (
        "spread-iptables",
        Shape::Proxy(ProxyMode::Iptables),
        spread::all_nodes_serve_one_address_with_iptables,
    ),
    ("variants", Shape::WithoutArpeggio, variants::components_change_what_is_installed_elsewhere),
    ("doctor", Shape::WithoutArpeggio, doctor::each_fault_of_the_installation_has_its_code),
    (
        "oldest-kubernetes",
        Shape::OldestApi,
        oldest::the_oldest_kubernetes_takes_our_manifests_and_serves_our_programs,
    ),
];

fn main() -> ExitCode {
    guard::run_if_asked();
    let sharing = SHARING.iter().map(|(name, run)| (*name, Cluster::Shared, *run));
    let renewed = RENEWED.iter().map(|(name, run)| (*name, Cluster::Renewed, *run));
    let usual = SCENARIOS.iter();
    let usual = usual.map(|(name, run)| (*name, Cluster::Own(Shape::Nodes(NODES)), *run));
    let shaped = SHAPED.iter().map(|(name, shape, run)| (*name, Cluster::Own(*shape), *run));
    let trials =
        sharing.chain(renewed).chain(usual).chain(shaped).map(|(name, cluster, run)| Trial {
            name,
            cluster,
            run,
            is_quick: QUICK.contains(&name),
            is_timed: name.starts_with("fault") || TIMED.contains(&name),
            is_loud: LOUD.contains(&name),
        });
    let trials: Vec<Trial> = trials.collect();
    for name in QUICK.iter().chain(TIMED).chain(LOUD) {
        assert!(trials.iter().any(|trial| trial.name == *name), "there is no scenario {name}");
    }
    runner::run(trials)
}
