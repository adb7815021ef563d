//! What the API server counts.

use std::collections::BTreeMap;

/// Requests that change something, by `VERB RESOURCE`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Writes(BTreeMap<String, u64>);

/// `kube-apiserver`'s own labels for what changes an object.
const VERBS: [&str; 5] = ["POST", "PUT", "PATCH", "APPLY", "DELETE"];

/// What controllers of load balancers write. The rest is Kubernetes' own, some of it long after its start.
const THEIRS: [&str; 6] = [
    "addresspools/status",
    "configurationstates",
    "events",
    "ipaddresspools/status",
    "leases",
    "services/status",
];

impl Writes {
    /// Reads the API server's `/metrics`.
    pub(crate) fn parse(metrics: &str) -> Self {
        let mut counts = BTreeMap::new();
        for line in metrics.lines().filter_map(|line| line.strip_prefix("apiserver_request_total{"))
        {
            if let Some((name, count)) = parse_line(line) {
                *counts.entry(name).or_default() += count;
            }
        }
        Self(counts)
    }

    /// What came since `before`.
    pub(crate) fn since(&self, before: &Self) -> Self {
        let grown = |(name, count): (&String, &u64)| {
            let count = count.saturating_sub(before.0.get(name).copied().unwrap_or_default());
            (count > 0).then(|| (name.clone(), count))
        };
        Self(self.0.iter().filter_map(grown).collect())
    }

    /// The counts of what controllers of load balancers write.
    pub(crate) fn named(&self) -> BTreeMap<&str, u64> {
        let is_theirs = |name: &str| THEIRS.iter().any(|resource| name.contains(resource));
        let theirs = self.0.iter().filter(|(name, _)| is_theirs(name));
        theirs.map(|(name, count)| (name.as_str(), *count)).collect()
    }

    /// How many that is for each of `count` Services.
    pub(crate) fn per(&self, count: usize) -> f64 {
        let total: u64 = self.named().values().sum();
        let float = |number: u64| f64::from(u32::try_from(number).unwrap_or(u32::MAX));
        float(total) / float(u64::try_from(count).unwrap_or(u64::MAX)).max(1.0)
    }
}

/// How many watches are open, of any kind and by anybody.
pub(crate) fn watches(metrics: &str) -> u64 {
    let lines = metrics.lines().filter(|line| line.starts_with("apiserver_longrunning_requests{"));
    let watches = lines.filter(|line| line.contains(r#"verb="WATCH""#));
    watches.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

/// `...resource="leases",...,subresource="",verb="POST",...} 12`
fn parse_line(line: &str) -> Option<(String, u64)> {
    let (labels, count) = line.rsplit_once("} ")?;
    let label = |name: &str| {
        let (_, rest) = labels.split_once(&format!("{name}=\""))?;
        rest.split('"').next()
    };
    let verb = label("verb").filter(|verb| VERBS.contains(verb))?;
    let resource = label(",resource")?;
    // Written as a float, but always whole.
    let count = count.trim().parse::<f64>().ok().map(|count| format!("{count:.0}"))?;
    let name = match label("subresource").filter(|it| !it.is_empty()) {
        Some(subresource) => format!("{verb} {resource}/{subresource}"),
        None => format!("{verb} {resource}"),
    };
    Some((name, count.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = r#"
# TYPE apiserver_request_total counter
apiserver_request_total{code="200",component="apiserver",dry_run="",group="",resource="services",scope="resource",subresource="",verb="GET",version="v1"} 7
apiserver_request_total{code="201",component="apiserver",dry_run="",group="",resource="services",scope="resource",subresource="",verb="POST",version="v1"} 2
apiserver_request_total{code="200",component="apiserver",dry_run="",group="",resource="services",scope="resource",subresource="status",verb="APPLY",version="v1"} 2
"#;

    #[test]
    fn writes_are_counted_by_verb_and_resource() {
        let after = BEFORE.replace("} 2", "} 1.2e+01");
        let grown = Writes::parse(&after).since(&Writes::parse(BEFORE));
        assert_eq!(grown.named(), BTreeMap::from([("APPLY services/status", 10)]));
        assert!((grown.per(5) - 2.0).abs() < f64::EPSILON);
    }

    #[test]
    fn open_watches_are_counted() {
        let line = |verb: &str, count: u8| {
            format!(r#"apiserver_longrunning_requests{{resource="leases",verb="{verb}"}} {count}"#)
        };
        let metrics = [line("WATCH", 3), line("CONNECT", 1), line("WATCH", 2)].join("\n");
        assert_eq!(watches(&metrics), 5);
    }
}
