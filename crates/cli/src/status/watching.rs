//! `arpeggio status --watch`: what changes, as it changes.

use std::io::{self, Write as _};

use anyhow::bail;
use arpeggio_api::lease;
use arpeggio_runtime::{
    failure::{Cause, Failure},
    health::Health,
    server_clock,
    watch::{Change, Event, Haste, Watch},
};
use arpeggio_text::printable_json;
use k8s_openapi::{api::coordination::v1::Lease, jiff::Timestamp};
use kube::{
    Api, Client,
    runtime::watcher::{self, Config},
};

use super::{known::Status, report::Report, selection::Selection};
use crate::{
    changes::{Seen, Told},
    complaint::words,
    outcome::{Format, yaml},
    paint,
};

/// Shows everything once and then each change, until somebody stops the command, or nobody reads any more what it writes.
pub(super) async fn follow(
    client: Client,
    system: &str,
    selection: &Selection,
    format: Format,
) -> anyhow::Result<()> {
    let listed = Health::default().awaits("Leases");
    let leases = Api::namespaced(client, system);
    let config = Config::default().labels(lease::SELECTOR);
    let mut watch = Watch::new(leases, config, Haste::Urgent, listed);
    let mut seen = Seen::default();
    let mut contact = Contact::default();
    let mut begun = false;
    let mut out = anstream::stdout();
    loop {
        let event = watch.next().await;
        if let Some(why) = refusal(&event, watch.is_listed()) {
            bail!("cannot follow Leases in namespace {system}: {why}");
        }
        if let Some(said) = contact.note(&event) {
            anstream::eprintln!("arpeggio: {}", paint::shown(&said));
        }
        let Some(change) = watch.pass(event) else { continue };
        let now = server_clock::now();
        let mut text = match &change {
            Change::Listed(leases) | Change::ListedInPart { objects: leases, .. } if !begun => {
                begin(leases, selection, format, now)
            }
            _ => String::new(),
        };
        let told = seen.take_in(change, now);
        for change in told.iter().filter(|it| begun && is_in(it, selection)) {
            text.push_str(&one(change, format)?);
        }
        if !is_read(write!(out, "{text}"))? {
            return Ok(());
        }
        begun = true;
    }
}

/// Why nothing is followed: what will not get better by trying again and, before anything `is_listed`, whatever fails. Whoever
/// asks sees nothing then, and cannot tell that from a cluster where nothing happens.
pub(crate) fn refusal(event: &Event<Lease>, is_listed: bool) -> Option<String> {
    let error = event.as_ref().err()?;
    let why = || said(error);
    match failure(error) {
        Failure::Refused(Cause::Forbidden) => {
            Some(format!("{}; you need the permissions to \"list\" and \"watch\" them", why()))
        }
        Failure::Refused(Cause::Unauthorized) => Some(why()),
        // What there is has changed since the first page of the list: it is listed anew.
        _ if is_expired(error) => None,
        _ => (!is_listed).then(why),
    }
}

/// Whether somebody was told that the API server does not answer.
#[derive(Debug, Default)]
struct Contact {
    is_lost: bool,
}

impl Contact {
    /// What to say of it: once that it is lost, and once that it is back.
    fn note(&mut self, event: &Event<Lease>) -> Option<String> {
        match event {
            // A list that has not ended shows nothing yet.
            Ok(watcher::Event::Init | watcher::Event::InitApply(_)) => None,
            Ok(_) => {
                let was_lost = std::mem::take(&mut self.is_lost);
                was_lost.then(|| "the API server answers again".to_owned())
            }
            Err(error) if is_expired(error) => None,
            Err(error) => {
                let is_new = !std::mem::replace(&mut self.is_lost, true);
                is_new.then(|| {
                    format!("the API server does not answer: {}; trying again", said(error))
                })
            }
        }
    }
}

/// The request that failed.
fn of_request(error: &watcher::Error) -> Option<&kube::Error> {
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => Some(error),
        watcher::Error::WatchError(_) | watcher::Error::NoResourceVersion => None,
    }
}

fn failure(error: &watcher::Error) -> Failure {
    match error {
        watcher::Error::WatchError(status) => Failure::of_status(status),
        _ => of_request(error).map_or(Failure::Unanswered { retry_after: None }, Failure::from),
    }
}

/// Whether the API server has forgotten what has happened since (HTTP 410), which is nothing to tell of.
fn is_expired(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::WatchError(status) => status.code == 410,
        _ => matches!(of_request(error), Some(kube::Error::Api(status)) if status.code == 410),
    }
}

fn said(error: &watcher::Error) -> String {
    match error {
        watcher::Error::WatchError(status) => status.message.clone(),
        _ => of_request(error).map_or_else(|| error.to_string(), words),
    }
}

/// What there is; nothing of it for programs.
fn begin(leases: &[Lease], selection: &Selection, format: Format, now: Timestamp) -> String {
    if !format.is_for_people() {
        return String::new();
    }
    let report = Report::of(&Status::of(leases), &[], &[], now).only(selection);
    paint::shown(&report.to_text(format, selection, now)) + "\n"
}

/// A line for each change; for programs one object.
fn one(change: &Told, format: Format) -> anyhow::Result<String> {
    Ok(match format {
        Format::Table | Format::Wide => paint::one_line(&change.to_text()) + "\n",
        Format::Json => printable_json(&serde_json::to_string(change)?).into_owned() + "\n",
        Format::Yaml => format!("---\n{}\n", yaml(change)?.trim_end()),
    })
}

/// Whether somebody still reads what is written.
fn is_read(written: io::Result<()>) -> io::Result<bool> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        written => written.map(|()| true),
    }
}

/// Whether somebody wants to see a change.
fn is_in(told: &Told, selection: &Selection) -> bool {
    let is_on = |node: &String| [&told.from, &told.to].into_iter().flatten().any(|it| it == node);
    let is_of_pool = |pool: &String| told.pool.as_ref().is_none_or(|it| it == pool);
    let is_session = told.address.is_none();
    selection.node.as_ref().is_none_or(is_on)
        && selection.pool.as_ref().is_none_or(is_of_pool)
        && (is_session || selection.has_any_of(&told.services))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::{Request, Response};
    use kube::{client::Body, core::Status as Answer};
    use serde_json::json;
    use tokio::time::timeout;

    use super::*;

    fn answer(code: u16, reason: &str) -> kube::Error {
        kube::Error::Api(Answer::failure(reason, reason).with_code(code).boxed())
    }

    /// An API server that answers everything with this.
    fn server(code: u16, reason: &str) -> Client {
        let text = serde_json::to_vec(&Answer::failure(reason, reason).with_code(code)).unwrap();
        let answer = move |_: Request<Body>| {
            let body = Body::from(text.clone());
            async move { Response::builder().status(code).body(body) }
        };
        Client::new(tower::service_fn(answer), "default")
    }

    #[tokio::test(start_paused = true)]
    async fn who_cannot_see_anything_is_told_why() {
        let all = Selection::default();
        for (code, reason) in [(401, "Unauthorized"), (403, "Forbidden"), (503, "no upstream")] {
            let following = follow(server(code, reason), "lb", &all, Format::Json);
            let ended = timeout(Duration::from_secs(30), following).await.expect("it hangs");
            let told = ended.unwrap_err().to_string();
            let expected = format!("cannot follow Leases in namespace lb: {reason}");
            assert!(told.starts_with(&expected), "{told}");
        }
    }

    #[test]
    fn what_may_get_better_ends_nothing_later() {
        let is_end = |error, is_listed| refusal(&Err(error), is_listed).is_some();
        let start = |code| watcher::Error::WatchStartFailed(answer(code, "no"));
        let list = |code| watcher::Error::InitialListFailed(answer(code, "no"));
        assert!(is_end(start(401), true) && is_end(list(403), true));
        assert!(!is_end(start(503), true) && !is_end(list(500), true));
        assert!(is_end(list(500), false));
        assert!(!is_end(list(410), false), "it is listed anew");
    }

    #[test]
    fn that_the_api_server_is_away_is_said_once() {
        let mut contact = Contact::default();
        let away = || Err(watcher::Error::WatchStartFailed(answer(503, "no upstream")));
        assert_eq!(contact.note(&Ok(watcher::Event::InitDone)), None);
        let forgotten = Err(watcher::Error::WatchStartFailed(answer(410, "Expired")));
        assert_eq!(contact.note(&forgotten), None);
        let told = contact.note(&away()).unwrap();
        assert_eq!(told, "the API server does not answer: no upstream; trying again");
        assert_eq!(contact.note(&away()), None);
        assert_eq!(contact.note(&Ok(watcher::Event::Init)), None, "nothing is listed yet");
        let back = contact.note(&Ok(watcher::Event::InitDone));
        assert_eq!(back.as_deref(), Some("the API server answers again"));
        assert_eq!(contact.note(&Ok(watcher::Event::InitDone)), None);
    }

    fn lock(holder: &str) -> Lease {
        serde_json::from_value(json!({
            "metadata": {
                "name": "address-192.168.0.240", "resourceVersion": "7",
                "labels": { "arpeggio.dev/lease": "address" },
                "annotations": {
                    "arpeggio.dev/services": "shop/web/u1", "arpeggio.dev/pool": "home",
                },
            },
            "spec": { "holderIdentity": holder },
        }))
        .unwrap()
    }

    #[test]
    fn it_ends_well_when_nobody_reads_any_more() {
        let ended = |kind: io::ErrorKind| is_read(Err(kind.into())).map_err(|it| it.kind());
        assert_eq!(is_read(Ok(())).ok(), Some(true));
        assert_eq!(ended(io::ErrorKind::BrokenPipe), Ok(false));
        assert_eq!(ended(io::ErrorKind::StorageFull), Err(io::ErrorKind::StorageFull));
    }

    #[test]
    fn only_changes_that_somebody_asks_for_are_told() {
        let mut seen = Seen::default();
        let now = server_clock::now();
        seen.take_in(Change::Applied(lock("node-1")), now);
        let told = seen.take_in(Change::Applied(lock("node-2")), now);
        let is_told = |selection| is_in(&told[0], &selection);
        let all = Selection::default;
        assert!(is_told(all()));
        assert!(is_told(Selection { node: Some("node-1".into()), ..all() }));
        assert!(!is_told(Selection { node: Some("node-3".into()), ..all() }));
        assert!(!is_told(Selection { namespace: Some("other".into()), ..all() }));
        assert!(!is_told(Selection { pool: Some("other".into()), ..all() }));
    }
}
