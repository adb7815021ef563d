//! What users are told.

use std::net::IpAddr;

use crate::news::{Kind, News};
use arpeggio_api::{
    condition::{self, Finding},
    lock::NO_READY_ENDPOINTS,
    service::{
        ADDRESS_ALLOCATED, ADDRESS_CONFLICT, ADDRESS_EXPIRING, ADDRESS_NOT_ANNOUNCED,
        ADDRESS_RELEASING, ANNOUNCED, CONDITIONS, CONNECTIONS_LEFT, NOT_SPREAD, ROUTED,
        STATUS_CONTESTED, ServiceRecord,
    },
    session::mac_text,
};
use arpeggio_election::{Claimant, Node};
use arpeggio_ipam::Allocator;
use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::SignedDuration,
};

use super::outcome::{Hint, Outcome, Reason, Replacement};
use crate::effect::ALLOCATED;

/// The reason that a stranger has an address of a Service.
const CONFLICT: &str = "AddressConflict";

/// The reasons of a condition that says that another machine has an address: one that answers there, one that does beside
/// the node that announces it, a node that does so, or a node or gateway by what it says itself.
const STRANGER: &str = "StrangerAnswers";
const INTRUDER: &str = "StrangerAnswersToo";
const FELLOW: &str = "NodeAnswersToo";
const MACHINE: &str = "MachineHasIt";

/// The reason that another program writes the status of a Service.
const RIVAL: &str = "RivalWriter";

/// The reason of a condition that does not hold and cannot be removed.
const REMAINS: &str = "NotSo";

/// The reasons of a condition that says that nobody announces a Service's addresses, or some of them.
const SILENT: [&str; 2] = ["NotAnnounced", "PartlyAnnounced"];

/// What there is to say of a Service that nobody announces.
const NOT_NOW: &str = "no speaker announces the Service now; if that lasts, its events say why";

/// Addresses as a list for people.
pub(super) fn join<'a>(addresses: impl IntoIterator<Item = &'a IpAddr>) -> String {
    addresses.into_iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ")
}

/// The conditions that say this outcome. `expiring_since`: when the grace period of its expiring addresses began.
pub(super) fn conditions(
    record: &ServiceRecord,
    outcome: &Outcome,
    expiring_since: Option<Time>,
    rival: Option<&str>,
    now: &Time,
) -> Vec<Condition> {
    let of = |finding: Finding, same: bool| {
        let present = record.condition(finding.type_).filter(|_| same);
        finding.observed(None, present, now.clone())
    };
    let expiring = expiring(outcome).map(|finding| match expiring_since {
        Some(since) => finding.observed(None, None, since),
        None => of(finding, true),
    });
    let releasing = releasing(&outcome.releasing).map(|finding| of(finding, true));
    let conflict = conflict(outcome).map(|finding| of(finding, true));
    let unannounced = unannounced(&outcome.unannounced).map(|finding| of(finding, true));
    let allocated = Some(of(still_allocated(record, outcome), true));
    let announced = announced(outcome).map(|finding| of(finding, true));
    let contested = rival.map(|rival| of(contest(rival), true));
    let left = left_behind(outcome).map(|finding| of(finding, true));
    let not_spread = not_spread(outcome).map(|finding| of(finding, true));
    let all = [
        allocated,
        expiring,
        releasing,
        conflict,
        unannounced,
        contested,
        announced,
        left,
        not_spread,
    ];
    let mut all: Vec<Condition> = all.into_iter().flatten().collect();
    all.extend(remains(record, &all, now));
    all.sort_by_key(|it| CONDITIONS.iter().position(|type_| *type_ == it.type_));
    all
}

/// What stays of conditions that do not hold any more, or never did, since another program has written them, too: to leave
/// them out would remove nothing.
pub(super) fn remains(record: &ServiceRecord, besides: &[Condition], now: &Time) -> Vec<Condition> {
    let is_said = |type_: &str| besides.iter().any(|it| it.type_ == type_);
    let held = record.held_conditions.iter().filter(|type_| !is_said(type_));
    held.filter_map(|type_| {
        let present = record.condition(type_)?;
        let message = "this is not so; another program than Arpeggio has written the condition, so that it stays";
        let message = message.to_owned();
        let finding = Finding { type_, holds: false, reason: REMAINS, message };
        Some(finding.observed(None, Some(present), now.clone()))
    })
    .collect()
}

/// Whether the status says anything of ours that could be taken out of it.
pub(super) fn says_more_than_remains(record: &ServiceRecord) -> bool {
    record.conditions.iter().any(|it| it.reason != REMAINS)
}

/// In what two sets of conditions differ.
pub(super) enum Difference {
    Nothing,
    /// Only in what can wait for so long.
    Later(SignedDuration),
    More,
}

/// How long after a move it is written who announces an address.
const TELL_ANNOUNCERS_AFTER: SignedDuration = SignedDuration::from_secs(1);

/// How long after the owner's session has ended it is written that nobody announces an address: another node has it by then.
const TELL_OF_SILENCE_AFTER: SignedDuration = SignedDuration::from_secs(5);

/// How long it takes until it is written that connections are left on a node or that one node serves an address, or that it is not so any
/// more: what is short ends by itself.
const TELL_WHAT_LASTS_AFTER: SignedDuration = SignedDuration::from_secs(5);

/// How long it takes until another number of them, or another reason, is written. Both may change all the time, of thousands of
/// Services.
const TELL_ANOTHER_AFTER: SignedDuration = SignedDuration::from_mins(1);

/// The conditions that are worth a word only when they last. A stranger who answers is one at once.
const LASTING: [&str; 3] = [CONNECTIONS_LEFT, NOT_SPREAD, ADDRESS_CONFLICT];

/// In what these two sets of conditions differ.
pub(super) fn difference(one: &[Condition], other: &[Condition]) -> Difference {
    let is_same = |types: &[&str]| {
        let is_one = |it: &&Condition| types.contains(&it.type_.as_str());
        one.iter().filter(is_one).eq(other.iter().filter(is_one))
    };
    let says = |all: &[Condition]| LASTING.map(|it| condition::of_type(all, it).is_some());
    let is_urgent = |type_: &str| {
        [one, other].iter().any(|it| tells_of_stranger(it) && type_ == ADDRESS_CONFLICT)
    };
    let waits = |type_: &str| type_ == ANNOUNCED || (LASTING.contains(&type_) && !is_urgent(type_));
    if one == other {
        Difference::Nothing
    } else if !CONDITIONS.iter().all(|it| waits(it) || is_same(&[it])) {
        Difference::More
    } else if !is_same(&[ANNOUNCED]) {
        let is_silent = condition::of_type(other, ANNOUNCED)
            .is_some_and(|it| SILENT.contains(&it.reason.as_str()));
        Difference::Later(if is_silent { TELL_OF_SILENCE_AFTER } else { TELL_ANNOUNCERS_AFTER })
    } else if says(one) != says(other) {
        Difference::Later(TELL_WHAT_LASTS_AFTER)
    } else {
        Difference::Later(TELL_ANOTHER_AFTER)
    }
}

fn tells_of_stranger(conditions: &[Condition]) -> bool {
    condition::of_type(conditions, ADDRESS_CONFLICT).is_some_and(|it| it.reason == STRANGER)
}

/// That another program writes the same status.
fn contest(rival: &str) -> Finding {
    let message = format!(
        "{rival:?} clears or overwrites the status of the Service, which Arpeggio then writes again: only one load \
         balancer may serve a Service. Set spec.loadBalancerClass so that the Service is for one of the two, or switch \
         the other one off{}",
        how_to_switch_off(rival)
    );
    Finding { type_: STATUS_CONTESTED, holds: true, reason: RIVAL, message }
}

/// The setting by which well-known programs stop to serve Services, by their field managers.
fn how_to_switch_off(rival: &str) -> &'static str {
    match rival {
        "cilium-operator" | "cilium-operator-generic" => {
            " (Cilium: enable-lb-ipam: \"false\" in ConfigMap cilium-config, then restart cilium-operator)"
        }
        "k3s" => " (k3s: --disable=servicelb)",
        "rke2" => " (RKE2: --disable=rke2-servicelb)",
        "kube-vip" | "kube-vip-cloud-provider" => " (kube-vip: svc_enable=\"false\")",
        _ => "",
    }
}

/// The news that another program writes the same status.
pub(super) fn contested(rival: &str) -> News {
    warning(RIVAL, "Allocate", contest(rival).message)
}

fn announced(outcome: &Outcome) -> Option<Finding> {
    let somebody: Vec<&str> = outcome.announcers.iter().flatten().map(String::as_str).collect();
    let holds = somebody.len() == outcome.announcers.len();
    let (reason, message) = match (holds, somebody.is_empty()) {
        (true, _) => ("Announced", somebody.join("; ")),
        _ if !outcome.routed.is_empty() => {
            let routed = format!(
                "no node announces {}, since its pool says routed: a router on the segment has to have a route to it",
                join(&outcome.routed)
            );
            let told = somebody.into_iter().chain([routed.as_str()]).collect::<Vec<_>>();
            (ROUTED, told.join("; "))
        }
        _ if !outcome.backless.is_empty() => {
            let waiting = waiting(&outcome.backless);
            let told = somebody.into_iter().chain([waiting.as_str()]).collect::<Vec<_>>();
            (NO_READY_ENDPOINTS, told.join("; "))
        }
        (false, true) => (SILENT[0], NOT_NOW.to_owned()),
        (false, false) => (SILENT[1], format!("{}; no other", somebody.join("; "))),
    };
    let finding = Finding { type_: ANNOUNCED, holds, reason, message };
    (!outcome.announcers.is_empty()).then_some(finding)
}

fn left_behind(outcome: &Outcome) -> Option<Finding> {
    let text = |(address, node, count): &(IpAddr, String, u32)| {
        let plural = if *count == 1 { "" } else { "s" };
        format!("{count} connection{plural} to {address} still on {node}")
    };
    let texts: Vec<String> = outcome.left_behind.iter().map(text).collect();
    let message = (!texts.is_empty()).then(|| texts.join("; "))?;
    Some(Finding { type_: CONNECTIONS_LEFT, holds: true, reason: "Moved", message })
}

fn not_spread(outcome: &Outcome) -> Option<Finding> {
    let text = |(address, why): &(IpAddr, String)| format!("{address}: {why}");
    let texts: Vec<String> = outcome.not_spread.iter().map(text).collect();
    let message = (!texts.is_empty())
        .then(|| format!("one node serves what all nodes are to serve: {}", texts.join("; ")))?;
    Some(Finding { type_: NOT_SPREAD, holds: true, reason: "OneNode", message })
}

fn waiting(backless: &[IpAddr]) -> String {
    format!(
        "nobody announces {} until a pod of the Service is ready: with externalTrafficPolicy Local a node announces only \
         what its own pods answer",
        join(backless)
    )
}

/// As [`allocated`], where what the Service was told already stays as it is as long as it is so.
fn still_allocated(record: &ServiceRecord, outcome: &Outcome) -> Finding {
    let finding = allocated(outcome);
    let Some(Reason::NoneToGive(refusal, Hint::None)) = &outcome.refusal else { return finding };
    let before = record.condition(ADDRESS_ALLOCATED).filter(|it| it.reason == finding.reason);
    let stays = |it: &&Condition| {
        let why = it.message.strip_suffix(until_then(outcome).as_str());
        why.is_some_and(|why| refusal.upholds(why))
    };
    match before.filter(stays) {
        Some(before) => Finding { message: before.message.clone(), ..finding },
        None => finding,
    }
}

/// What follows the reason why a Service gets nothing new. What has its own time does not stay until then.
fn until_then(outcome: &Outcome) -> String {
    let expires = |it: &IpAddr| outcome.expiring.iter().any(|gone| gone.address == *it);
    let lasting: Vec<&IpAddr> = outcome.addresses.iter().filter(|it| !expires(it)).collect();
    match lasting.as_slice() {
        [] => String::new(),
        [address] => format!("; {address} stays until then"),
        addresses => format!("; {} stay until then", join(addresses.iter().copied())),
    }
}

/// What the Service has though its status, which another program has written, does not list it.
fn retained(outcome: &Outcome) -> String {
    let text = |(address, end): &(IpAddr, Time)| format!("; {address} is kept until {:.0}", end.0);
    outcome.ends.iter().map(text).collect()
}

/// Whether the Service has what it asks for, and why not.
pub(super) fn allocated(outcome: &Outcome) -> Finding {
    let addresses = join(&outcome.addresses);
    let (reason, message) = match &outcome.refusal {
        Some(Reason::NoneToGive(refusal, _)) if outcome.is_about_conflict(refusal) => (
            CONFLICT,
            format!("{addresses} is reserved for the Service, but another machine answers at it"),
        ),
        None => ("Allocated", format!("{addresses} assigned")),
        Some(why) => (failure(why), format!("{why}{}{}", until_then(outcome), retained(outcome))),
    };
    Finding { type_: ADDRESS_ALLOCATED, holds: outcome.refusal.is_none(), reason, message }
}

/// The reason, as conditions and events have it.
fn failure(why: &Reason) -> &'static str {
    match why {
        Reason::ApiRefused(_) => "ApiRefused",
        _ => "AllocationFailed",
    }
}

fn expiring(outcome: &Outcome) -> Option<Finding> {
    let first = outcome.expiring.first()?;
    let addresses = join(outcome.expiring.iter().map(|it| &it.address));
    let replaced = match outcome.replacement {
        Replacement::Sought => " and replaced",
        Replacement::Nothing => "",
    };
    let message = format!(
        "{addresses}: {}; released{replaced} when the grace period is over, unless a pool allows it again",
        first.why
    );
    Some(Finding { type_: ADDRESS_EXPIRING, holds: true, reason: "NotAllowed", message })
}

fn releasing(releasing: &[IpAddr]) -> Option<Finding> {
    let message = (!releasing.is_empty())
        .then(|| format!("{}: the Service gives it back", join(releasing)))?;
    Some(Finding { type_: ADDRESS_RELEASING, holds: true, reason: "NotNeeded", message })
}

fn conflict(outcome: &Outcome) -> Option<Finding> {
    let all = [
        (STRANGER, strangers(outcome)),
        (INTRUDER, intruders(outcome)),
        (FELLOW, fellows(outcome)),
        (MACHINE, machines(outcome)),
    ];
    let told: Vec<(&str, String)> =
        all.into_iter().filter_map(|(reason, message)| Some((reason, message?))).collect();
    let (reason, _) = *told.first()?;
    let messages: Vec<String> = told.into_iter().map(|(_, message)| message).collect();
    let message = messages.join("; ");
    Some(Finding { type_: ADDRESS_CONFLICT, holds: true, reason, message })
}

fn strangers(outcome: &Outcome) -> Option<String> {
    let conflicts = &outcome.conflicts;
    let addresses = join(conflicts.iter().map(|(address, _)| address));
    let strangers: Vec<&str> = conflicts.iter().map(|(_, stranger)| stranger.as_str()).collect();
    let remedy = if outcome.answered_everywhere {
        "It answers at other addresses of the pools as well, as a router with proxy ARP does, so another address would be no \
         better: switch proxy ARP off there, or set conflictProbing: false on the pool"
    } else {
        "Take the address away from that machine, or request another one"
    };
    let message = || {
        format!(
            "{addresses}: the machine with the MAC address {} answers there, so no node announces it. {remedy}. The nodes \
             ask again now and then, and announce it when no machine answers any more",
            strangers.join(", ")
        )
    };
    (!conflicts.is_empty()).then(message)
}

/// Machines that are no nodes and claim what a node announces.
fn intruders(outcome: &Outcome) -> Option<String> {
    let told = |(address, holder, by): &(IpAddr, Node, Claimant)| match by {
        Claimant::Stranger(mac) => Some(format!(
            "{address}: a machine that is no node of this cluster ({}) announces it as well as {holder}",
            mac_text(*mac)
        )),
        Claimant::Node(_) => None,
    };
    let follows = "so that clients may reach the wrong machine. Give that machine another address, or exclude this one from \
                   the pool and request another one";
    joined(outcome.disputed.iter().filter_map(told), follows)
}

/// What is told of several addresses, and what follows from all of it; nothing if there are none.
fn joined(told: impl Iterator<Item = String>, follows: &str) -> Option<String> {
    let told: Vec<String> = told.collect();
    (!told.is_empty()).then(|| format!("{}, {follows}", told.join("; ")))
}

/// Nodes that claim what another one announces.
fn fellows(outcome: &Outcome) -> Option<String> {
    let told = |(address, holder, by): &(IpAddr, Node, Claimant)| match by {
        Claimant::Node(by) => {
            Some(format!("{address}: node {by} answers as well, though {holder} announces it"))
        }
        Claimant::Stranger(_) => None,
    };
    let follows = "so that clients may reach the wrong node. Another load balancer on that node, or kube-proxy in IPVS mode \
                   without strictARP, may do so: switch that off";
    joined(outcome.disputed.iter().filter_map(told), follows)
}

/// What nodes and gateways have by now that a Service has had before, or that it has from another load balancer.
fn machines(outcome: &Outcome) -> Option<String> {
    let told = outcome.of_machines.iter().map(|(address, why)| format!("{address}: {why}"));
    let follows = "as well as the Service's, so that clients may reach that machine instead. Take the address away from it, or \
                   exclude it from the pool and request another one";
    joined(told, follows)
}

fn unannounced(addresses: &[IpAddr]) -> Option<Finding> {
    let message = || {
        format!(
            "{}: no node announces it, since no rule in spec.announce of its pool is for this Service: add one (for a pool \
             of MetalLB's, an L2Advertisement that selects the pool), or ask for an address from another pool",
            join(addresses)
        )
    };
    let message = (!addresses.is_empty()).then(message)?;
    Some(Finding { type_: ADDRESS_NOT_ANNOUNCED, holds: true, reason: "NotAdvertised", message })
}

/// What is new in an outcome, for events.
pub(super) fn news(record: &ServiceRecord, outcome: &Outcome, allocator: &Allocator) -> Vec<News> {
    let changed = change(record, outcome, allocator);
    let finding = still_allocated(record, outcome);
    let said = record.condition(ADDRESS_ALLOCATED).map(|it| it.message.as_str());
    let is_new = said != Some(finding.shown().as_str()) && finding.reason != CONFLICT;
    let refused = outcome.refusal.as_ref().filter(|_| is_new);
    let refused = refused.map(|why| warning(failure(why), "Allocate", finding.message));
    let is_news = |finding: &Finding| {
        record.condition(finding.type_).is_none_or(|it| it.message != finding.shown())
    };
    let expiring = expiring(outcome)
        .filter(is_news)
        .map(|finding| warning("AddressExpiring", "Release", finding.message));
    // The holder's speaker has told of another node that answers.
    let conflict = conflict(outcome)
        .filter(|finding| is_news(finding) && finding.reason != FELLOW)
        .map(|finding| warning(CONFLICT, "Allocate", finding.message));
    let unannounced = unannounced(&outcome.unannounced)
        .filter(is_news)
        .map(|finding| warning("NotAdvertised", "Announce", finding.message));
    [changed, refused, expiring, conflict, unannounced].into_iter().flatten().collect()
}

/// Why a Service loses what it loses.
fn why_lost(outcome: &Outcome) -> String {
    match (outcome.leaving.first(), &outcome.refusal) {
        (Some(leaving), _) => leaving.why.to_string(),
        (None, Some(Reason::NoneToGive(_, Hint::Exchange(_)))) => {
            "the Services exchange their addresses".to_owned()
        }
        (None, _) => "another Service holds it".to_owned(),
    }
}

/// What the Service has got or lost.
fn change(record: &ServiceRecord, outcome: &Outcome, allocator: &Allocator) -> Option<News> {
    let before = &record.ingress.addresses;
    let added: Vec<&IpAddr> = outcome.addresses.iter().filter(|it| !before.contains(it)).collect();
    let lost: Vec<&IpAddr> = before.iter().filter(|it| !outcome.addresses.contains(it)).collect();
    let ours = record.ingress.is_ours();
    let untouched = outcome.list().is_none() && !ours;
    let why = why_lost(outcome);
    match (added.is_empty(), lost.is_empty() || untouched) {
        (true, true) => None,
        (true, false) => {
            Some(normal("ClearAssignment", "Release", format!("Released {}: {why}", join(lost))))
        }
        (false, nothing_lost) => {
            let given: Vec<String> = added.iter().map(|it| origin(**it, allocator)).collect();
            let instead = match (nothing_lost, ours) {
                (true, _) => String::new(),
                (false, true) => format!(" instead of {}: {why}", join(lost)),
                (false, false) => format!(
                    " instead of {}, which {} had left in the status",
                    join(lost),
                    record.ingress.writers()
                ),
            };
            let note = format!("Assigned {}{instead}", given.join(", "));
            Some(normal(ALLOCATED, "Allocate", note))
        }
    }
}

/// An address and the pool that it is from.
fn origin(address: IpAddr, allocator: &Allocator) -> String {
    match allocator.pool_of(address) {
        Some(pool) => format!("{address} from pool {}", pool.name),
        None => address.to_string(),
    }
}

/// That a Service which is not for us any more has lost its addresses.
pub(super) fn withdrawn(addresses: &[IpAddr]) -> Option<News> {
    let note = || {
        format!(
            "Released {}: spec.type is not LoadBalancer any more, or spec.loadBalancerClass is another one",
            join(addresses)
        )
    };
    (!addresses.is_empty()).then(|| normal("ClearAssignment", "Release", note()))
}

fn normal(reason: &'static str, action: &'static str, note: String) -> News {
    News { kind: Kind::Normal, reason, action, note }
}

fn warning(reason: &'static str, action: &'static str, note: String) -> News {
    News { kind: Kind::Warning, reason, action, note }
}
