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
    let mut begun = false;
    let mut out = anstream::stdout();
    loop {
        let event = watch.next().await;
        if let Some(why) = refusal(&event) {
            bail!("cannot follow Leases in namespace {system}: {why}");
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

/// What will not get better by trying again.
pub(crate) fn refusal(event: &Event<Lease>) -> Option<String> {
    let Err(
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status)),
    ) = event
    else {
        return None;
    };
    (Failure::of_status(status) == Failure::Refused(Cause::Forbidden)).then(|| {
        format!("{}; you need the permissions to \"list\" and \"watch\" them", status.message)
    })
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
    use serde_json::json;

    use super::*;

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
