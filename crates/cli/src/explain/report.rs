//! The explanation as text.

use std::{fmt::Write as _, time::Duration};

use arpeggio_api::{
    leader,
    service::{ANNOUNCED, ServiceRecord},
};
use k8s_openapi::{
    api::{coordination::v1::Lease, events::v1::Event},
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};

use super::Evidence;
use crate::{
    gaps::Gap,
    paint,
    status::{ADDRESS_COLUMNS, Status, ago, section},
    table,
};

/// How many events are shown, the latest ones.
const EVENTS: usize = 10;

/// What is known and what follows from it.
pub(super) struct Report<'a> {
    evidence: &'a Evidence,
    class: Option<&'a str>,
    grace: Duration,
    /// Where the connection of a client would go, when somebody asks for that.
    route: Option<String>,
    record: ServiceRecord,
}

impl<'a> Report<'a> {
    /// A report for a controller that serves `class` and keeps addresses for `grace` that no pool allows.
    pub(super) fn of(
        evidence: &'a Evidence,
        class: Option<&'a str>,
        grace: Duration,
        route: Option<String>,
    ) -> Self {
        let record = ServiceRecord::parse(&evidence.service, class);
        Self { evidence, class, grace, route, record }
    }

    /// The text, with ages as of `now`.
    pub(super) fn render(&self, now: Timestamp) -> String {
        let evidence = self.evidence;
        let (advice, used_as_before) = evidence.advice(self.class, self.grace, &Time(now));
        let mut text = format!("Service {}\n", self.record.path());
        let sections = [
            ("What the controller said last", self.conditions(now)),
            ("What follows from the objects as they are now", lines(&advice)),
            ("Pools that are used as they were before", lines(&used_as_before)),
            ("Pools of MetalLB's that are not read", lines(&evidence.strays.told())),
            ("Who announces it", self.announced(now)),
            ("Where a new connection of the client goes", self.route.clone().unwrap_or_default()),
            ("Which controller decides", self.leader(now)),
            ("Events", events(&evidence.events, now)),
            ("What could not be read, so that the above may be incomplete or wrong", self.gaps()),
        ];
        for (title, body) in sections.into_iter().filter(|(_, body)| !body.is_empty()) {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "\n{title}:");
            body.lines().for_each(|line| text.extend(["  ", line, "\n"]));
        }
        text
    }

    /// A Lease that could not be read is not one that does not exist.
    fn leader(&self, now: Timestamp) -> String {
        match &self.evidence.leader {
            None => self
                .unread_leases()
                .map_or_else(|| controller(None, false, now), |why| format!("{why}\n")),
            lease => controller(lease.as_ref(), self.evidence.leads, now),
        }
    }

    /// Why a Lease that is not there may be there. Who may read none is not told of some.
    fn unread_leases(&self) -> Option<&'static str> {
        let mut gaps = self.evidence.gaps.iter().filter(|it| it.is_of("leases")).peekable();
        gaps.peek()?;
        Some(if gaps.any(Gap::is_whole) {
            "not known: Leases could not be read"
        } else {
            "not known: not all Leases are understood"
        })
    }

    fn gaps(&self) -> String {
        lines(&self.evidence.gaps)
    }

    fn conditions(&self, now: Timestamp) -> String {
        if self.record.conditions.is_empty() {
            return "nothing: no controller has looked at the Service yet, or it is not for Arpeggio\n"
                .to_owned();
        }
        let line = |condition: &Condition| {
            let Condition { type_, status, reason, message, last_transition_time, .. } = condition;
            let type_ = type_.rsplit('/').next().unwrap_or(type_);
            let age = ago(Some(last_transition_time.0), now);
            paint::one_line(&format!("{type_}={status} ({reason}, since {age}): {message}"))
        };
        self.record.conditions.iter().map(line).collect::<Vec<String>>().join("\n")
    }

    fn announced(&self, now: Timestamp) -> String {
        let status = Status::of(&self.evidence.leases);
        let status = status.told_by(std::slice::from_ref(&self.evidence.service));
        let rows = status.addresses_of(&self.record.service.uid, now);
        let said = self.record.condition(ANNOUNCED).is_some_and(|it| it.status == "True");
        let nobody = match self.unread_leases() {
            None => "nobody: no lock names the Service\n".to_owned(),
            Some(why) if said => {
                format!("{why}; the condition Announced has what a controller saw last\n")
            }
            Some(why) => format!("{why}\n"),
        };
        section(&nobody, ADDRESS_COLUMNS, &rows)
    }
}

fn lines(said: &[impl ToString]) -> String {
    said.iter().map(|it| paint::one_line(&it.to_string())).collect::<Vec<String>>().join("\n")
}

fn controller(lease: Option<&Lease>, renews: bool, now: Timestamp) -> String {
    let Some(lease) = lease else {
        return "none ever has. Do its pods run?\n".to_owned();
    };
    let holder = leader::parse(lease).ok().and_then(|record| record.leader.holder);
    let holder = holder.map(|holder| paint::one_line(&holder));
    let renewed = lease.spec.as_ref().and_then(|spec| spec.renew_time.as_ref()).map(|it| it.0);
    let age = ago(renewed, now);
    match holder {
        None => "none: the last one has stepped down. Do its pods run?\n".to_owned(),
        Some(holder) if !renews => {
            format!(
                "{holder}, which last said so {age} ago by the API server's clock, and not while it was looked at: it is late. Do its pods run?\n"
            )
        }
        Some(holder) => format!("{holder}, which said so {age} ago\n"),
    }
}

fn events(events: &[Event], now: Timestamp) -> String {
    let time = |event: &Event| event.event_time.as_ref().map(|time| time.0);
    let mut latest: Vec<&Event> = events.iter().collect();
    latest.sort_by_key(|event| std::cmp::Reverse(time(event)));
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let row = |event: &&Event| {
        [ago(time(event), now), text(&event.type_), text(&event.reason), text(&event.note)]
    };
    let rows: Vec<[String; 4]> = latest.iter().take(EVENTS).map(row).collect();
    if rows.is_empty() {
        return "none; Kubernetes forgets them after an hour\n".to_owned();
    }
    table::render(["AGE", "TYPE", "REASON", "NOTE"], &rows)
}

#[cfg(test)]
mod tests {
    use arpeggio_api::{
        address_pool::{AddressPool, AddressPoolSpec},
        declaration::Declaration,
        last_good::{self, LastGood},
        lock::{Claim, ServiceRef},
        terms::WrittenAnnounceTerms,
    };
    use k8s_openapi::{api::core::v1::Service, apimachinery::pkg::apis::meta::v1::MicroTime};
    use serde_json::json;

    use k8s_openapi::jiff::SignedDuration;

    use super::*;
    use crate::{
        explain::pools::Pools,
        gaps::{Gap, Reading},
        paint,
    };

    fn service(ingress: &[&str], condition: Option<&str>) -> Service {
        let ingress: Vec<_> = ingress.iter().map(|ip| json!({ "ip": ip })).collect();
        let condition = condition.map(|message| {
            json!({
                "type": "arpeggio.dev/AddressAllocated", "status": "False", "reason": "AllocationFailed",
                "message": message, "lastTransitionTime": "2026-01-01T00:00:00Z",
            })
        });
        serde_json::from_value(json!({
            "metadata": { "namespace": "shop", "name": "web", "uid": "u1", "resourceVersion": "5" },
            "spec": { "type": "LoadBalancer", "ipFamilies": ["IPv4"] },
            "status": {
                "loadBalancer": { "ingress": ingress },
                "conditions": condition.into_iter().collect::<Vec<_>>(),
            },
        }))
        .unwrap()
    }

    /// What is known of a Service in a namespace without labels.
    fn known(service: Service) -> Evidence {
        let namespace = json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "shop" },
        });
        Evidence {
            services: vec![service.clone()],
            service,
            namespaces: vec![serde_json::from_value(namespace).unwrap()],
            ..Evidence::default()
        }
    }

    fn pool(addresses: &str) -> Pools {
        let spec: AddressPoolSpec =
            serde_json::from_value(json!({ "addresses": [addresses] })).unwrap();
        Pools { own: vec![AddressPool::new("home", spec)], ..Pools::default() }
    }

    #[test]
    fn a_pool_that_was_broken_by_an_edit_is_used_as_it_was_and_that_is_said() {
        let broken = |generation: i64, addresses: &str| -> AddressPool {
            let metadata = json!({ "name": "home", "uid": "p1", "generation": generation });
            let spec = json!({ "addresses": [addresses] });
            serde_json::from_value(json!({
                "apiVersion": "arpeggio.dev/v1alpha1", "kind": "AddressPool",
                "metadata": metadata, "spec": spec,
            }))
            .unwrap()
        };
        let good = Declaration::from(&broken(3, "192.168.0.240/32"));
        let good = LastGood { object: good.object.clone(), pools: vec![good], advertisement: None };
        let evidence = Evidence {
            pools: Pools {
                own: vec![broken(4, "fd00::1/64")],
                records: vec![last_good::lease("p1", &good.to_text())],
                ..Pools::default()
            },
            ..known(service(&[], None))
        };
        let text = rendered(&evidence);
        assert!(text.contains("it would get 192.168.0.240 from pool \"home\""), "{text}");
        assert!(text.contains("Pools that are used as they were before:\n"), "{text}");
        assert!(text.contains("(generation 3) stays in force"), "{text}");
    }

    #[test]
    fn where_there_is_no_pool_it_is_said_where_metallb_is_read() {
        let pools =
            Pools { metallb_namespace: Some("metallb-system".to_owned()), ..Pools::default() };
        let text = rendered(&Evidence { pools, ..known(service(&[], None)) });
        assert!(text.contains("read in namespace \"metallb-system\" only"), "{text}");
    }

    fn lock(last: u8, name: &str, uid: &str) -> Lease {
        let (name, uid) = (name.to_owned(), uid.to_owned());
        let service = ServiceRef { namespace: "shop".into(), name, uid };
        let address = [192, 168, 0, last].into();
        let (services, terms) = (vec![service], WrittenAnnounceTerms::default());
        let mut lease =
            Claim { address, pool: "home".into(), services, terms, spread: false }.created();
        lease.metadata.resource_version = Some("1".into());
        lease
    }

    fn leader(now: Timestamp, age: i64) -> Lease {
        let renewed = MicroTime(now - SignedDuration::from_secs(age));
        serde_json::from_value(json!({
            "metadata": { "name": "controller-leader", "resourceVersion": "9" },
            "spec": { "holderIdentity": "pod-a_ff", "leaseDurationSeconds": 6, "renewTime": renewed },
        }))
        .unwrap()
    }

    fn rendered(evidence: &Evidence) -> String {
        let grace = Duration::from_mins(10);
        let now = "2026-01-01T00:03:00Z".parse().unwrap();
        paint::plain(&Report::of(evidence, None, grace, None).render(now))
    }

    #[test]
    fn a_full_pool_is_named_by_the_controller_and_afresh() {
        let evidence = Evidence {
            pools: pool("192.168.0.240/32"),
            leases: vec![lock(240, "other", "u2")],
            ..known(service(&[], Some("pool \"home\" was full")))
        };
        let text = rendered(&evidence);
        let said = "AddressAllocated=False (AllocationFailed, since 3m): pool \"home\" was full";
        assert!(text.contains(said), "{text}");
        assert!(text.contains("pool \"home\": all its IPv4 addresses are in use"), "{text}");
        assert!(text.contains("nobody: no lock names the Service"), "{text}");
    }

    #[test]
    fn a_service_that_nobody_looks_at_would_get_an_address() {
        let evidence = Evidence { pools: pool("192.168.0.240/32"), ..known(service(&[], None)) };
        let text = rendered(&evidence);
        assert!(text.contains("it would get 192.168.0.240 from pool \"home\""), "{text}");
        assert!(text.contains("no controller has looked at the Service yet"), "{text}");
    }

    #[test]
    fn what_it_has_is_told_apart_from_what_others_wrote() {
        let evidence = |locks: &[Lease]| Evidence {
            pools: pool("192.168.0.240/32"),
            leases: locks.to_vec(),
            ..known(service(&["192.168.0.240"], None))
        };
        let ours = rendered(&evidence(&[lock(240, "web", "u1")]));
        assert!(ours.contains("it keeps 192.168.0.240, whose lock names it"), "{ours}");
        assert!(ours.contains("192.168.0.240   home   shop/web   (nobody yet)"), "{ours}");
        let lost = rendered(&evidence(&[]));
        assert!(lost.contains("192.168.0.240, which no lock gives it"), "{lost}");
        let foreign = rendered(&evidence(&[lock(240, "other", "u2")]));
        assert!(foreign.contains("status.loadBalancer was written by"), "{foreign}");
    }

    #[test]
    fn what_nodes_and_strangers_have_is_kept_back() {
        let session: Lease = serde_json::from_value(json!({
            "metadata": {
                "name": "session-n1",
                "resourceVersion": "3",
                "labels": { "arpeggio.dev/lease": "session" },
                "annotations": {
                    "arpeggio.dev/interfaces":
                        r#"[{"name":"eth0","subnets":["192.168.0.241/30"],"gateways":["192.168.0.242"]}]"#,
                },
            },
        }))
        .unwrap();
        let mut quarantined = lock(244, "other", "u2");
        let marks = quarantined.metadata.annotations.as_mut().unwrap();
        marks.insert("arpeggio.dev/services".to_owned(), String::new());
        marks.insert("arpeggio.dev/stranger".to_owned(), "02:00:00:00:00:09".to_owned());
        let evidence = Evidence {
            pools: pool("192.168.0.240-192.168.0.245"),
            leases: vec![session, quarantined],
            ..known(service(&[], None))
        };
        let text = rendered(&evidence);
        assert!(text.contains("it would get 192.168.0.245 from pool"), "{text}");
    }

    #[test]
    fn who_shares_is_known_where_the_api_server_tells() {
        let sharer = |name: &str, uid: &str, port: u16| -> Service {
            let mut service = service(&[], None);
            service.metadata.name = Some(name.to_owned());
            service.metadata.uid = Some(uid.to_owned());
            let key = ("arpeggio.dev/sharing-key".to_owned(), "k".to_owned());
            service.metadata.annotations = Some([key].into());
            let ports = serde_json::from_value(json!([{ "port": port }])).unwrap();
            service.spec.as_mut().unwrap().ports = Some(ports);
            service
        };
        let evidence = |port| Evidence {
            services: vec![sharer("new", "u1", port), sharer("web", "u2", 80)],
            pools: pool("192.168.0.240/32"),
            leases: vec![lock(240, "web", "u2")],
            ..known(sharer("new", "u1", port))
        };
        let text = rendered(&evidence(443));
        assert!(text.contains("it would get 192.168.0.240 from pool"), "{text}");
        let text = rendered(&evidence(80));
        assert!(text.contains("all its IPv4 addresses are in use"), "{text}");
    }

    #[test]
    fn what_could_not_be_read_is_named_and_the_rest_is_shown() {
        let reading = |namespace: Option<&str>| Reading {
            resource: "leases".to_owned(),
            group: "coordination.k8s.io".to_owned(),
            namespace: namespace.map(str::to_owned),
            verb: "list",
        };
        let complete = Evidence { pools: pool("192.168.0.240/32"), ..known(service(&[], None)) };
        assert!(!rendered(&complete).contains("could not be read"));
        let gaps =
            vec![Gap::Forbidden(reading(Some("arpeggio-system"))), Gap::UnknownKind(reading(None))];
        let text = rendered(&Evidence { gaps, ..complete });
        assert!(text.contains("it would get 192.168.0.240 from pool"), "{text}");
        assert!(text.contains("so that the above may be incomplete or wrong:\n"), "{text}");
        let forbidden = "leases (API group \"coordination.k8s.io\", namespace arpeggio-system): you need the permission";
        assert!(text.contains(forbidden), "{text}");
        assert!(text.contains("does not know the kind"), "{text}");
        assert_eq!(text.matches("not known: Leases could not be read").count(), 2, "{text}");
    }

    #[test]
    fn without_its_namespace_nothing_is_decided() {
        let evidence = Evidence {
            pools: pool("192.168.0.240/32"),
            namespaces: Vec::new(),
            ..known(service(&[], None))
        };
        let text = rendered(&evidence);
        assert!(text.contains("its namespace \"shop\" is not known"), "{text}");
    }

    #[test]
    fn who_came_first_chooses_first() {
        let mut older = service(&[], None);
        older.metadata.name = Some("older".to_owned());
        older.metadata.uid = Some("u2".to_owned());
        let mut younger = service(&[], None);
        younger.metadata.creation_timestamp = Some(Time("2026-01-01T00:00:00Z".parse().unwrap()));
        let evidence = Evidence {
            services: vec![younger.clone(), older],
            pools: pool("192.168.0.240/32"),
            ..known(younger)
        };
        let text = rendered(&evidence);
        assert!(text.contains("all its IPv4 addresses are in use"), "{text}");
    }

    #[test]
    fn what_no_pool_allows_is_kept_for_a_grace_period() {
        let mut lease = lock(250, "web", "u1");
        let evidence = |lease: &Lease| Evidence {
            pools: pool("192.168.0.240/32"),
            leases: vec![lease.clone()],
            ..known(service(&["192.168.0.250"], None))
        };
        let text = rendered(&evidence(&lease));
        assert!(text.contains("a grace period begins"), "{text}");
        let expiring = [("arpeggio.dev/expiring".to_owned(), "u1@2026-01-01T00:02:00Z".to_owned())];
        lease.metadata.annotations.as_mut().unwrap().extend(expiring);
        let text = rendered(&evidence(&lease));
        let kept = "it keeps 192.168.0.250 for the grace period only, until 2026-01-01T00:12:00Z: ";
        assert!(text.contains(kept), "{text}");
    }

    #[test]
    fn a_late_leader_shows() {
        let now = "2026-01-01T00:03:00Z".parse().unwrap();
        assert_eq!(
            controller(Some(&leader(now, 2)), true, now),
            "pod-a_ff, which said so 2s ago\n"
        );
        let late = controller(Some(&leader(now, 300)), false, now);
        assert!(
            late.contains("5m ago by the API server's clock") && late.contains("it is late"),
            "{late}"
        );
        assert!(controller(None, false, now).starts_with("none ever has"));
    }

    #[test]
    fn the_latest_events_come_first() {
        let event = |seconds: i64, note: &str| Event {
            event_time: Some(MicroTime(Timestamp::from_second(seconds).unwrap())),
            reason: Some("Because".into()),
            note: Some(note.into()),
            ..Event::default()
        };
        let all: Vec<Event> = (0..12).map(|at| event(at, &format!("note {at}."))).collect();
        let text = events(&all, Timestamp::from_second(20).unwrap());
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].starts_with("9s") && lines[1].ends_with("note 11."), "{text}");
        assert_eq!(lines.len(), 1 + EVENTS);
    }
}
