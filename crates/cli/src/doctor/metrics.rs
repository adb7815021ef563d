//! What speakers have counted, read through the API server.

use arpeggio_doctor::{
    Known,
    facts::{Component, Installation, Metrics},
};
use arpeggio_runtime::version::UNKNOWN;
use http::Request;
use kube::Client;

use super::kubernetes::asked;

/// Where speakers serve their metrics.
const PORT: u16 = 7_474;

/// The node and the pod of each speaker that is ready.
pub(super) fn speakers(installation: &Installation) -> Vec<(String, String)> {
    let ready = installation
        .pods
        .iter()
        .filter(|it| it.component == Component::Speaker && it.ready && !it.ending);
    let mut speakers: Vec<(String, String)> =
        ready.filter_map(|it| Some((it.node.clone()?, it.name.clone()))).collect();
    // During an upgrade there are two on a node.
    speakers.sort();
    speakers.dedup_by(|one, other| one.0 == other.0);
    speakers
}

/// What the speaker in this pod has counted.
pub(super) async fn read(client: &Client, namespace: &str, pod: &str) -> Known<Metrics> {
    let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}:{PORT}/proxy/metrics");
    let request = Request::get(path).body(Vec::new()).map_err(|error| error.to_string())?;
    let text = asked(client.request_text(request)).await;
    text.map(|text| understood(&text))
        .map_err(|why| format!("its metrics could not be read: {why}"))
}

fn understood(text: &str) -> Metrics {
    let value = |name: &str| {
        let name = format!("arpeggio_speaker_{name} ");
        let value = text.lines().find_map(|line| line.strip_prefix(&name));
        value.and_then(|it| it.trim().parse().ok()).unwrap_or_default()
    };
    Metrics {
        contested: value("contested_addresses"),
        unannounceable: value("unannounceable_addresses"),
        patient_wrong: value("would_have_accused_total{profile=\"patient\"}"),
        revision: revision(text),
    }
}

/// As the program's own line says it, whatever the order of its labels.
fn revision(text: &str) -> Option<String> {
    let line = text.lines().find_map(|line| line.strip_prefix("arpeggio_build_info{"))?;
    let (_, rest) = line.split_once("revision=\"")?;
    known_revision(rest.split('"').next()?)
}

/// Without what a program says whose build did not name a commit.
pub(super) fn known_revision(revision: &str) -> Option<String> {
    (!revision.is_empty() && revision != UNKNOWN).then(|| revision.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_prometheus_is_read() {
        let text = "# HELP x y\narpeggio_speaker_contested_addresses 2\n\
                    arpeggio_speaker_would_have_accused_total{profile=\"fast\"} 9\n\
                    arpeggio_speaker_would_have_accused_total{profile=\"patient\"} 3\n\
                    arpeggio_build_info{revision=\"c0ffee-dirty\",version=\"0.2.0\"} 1\n";
        let revision = Some("c0ffee-dirty".to_owned());
        let expected = Metrics { contested: 2, unannounceable: 0, patient_wrong: 3, revision };
        assert_eq!(understood(text), expected);
        let nameless = "arpeggio_build_info{revision=\"unknown\",version=\"0.2.0\"} 1\n";
        assert_eq!(understood(nameless).revision, None);
    }
}
