//! A cluster that faults have happened in is made as new, or it is said what is not.

use std::time::{Duration, Instant};

use anyhow::ensure;

use crate::{
    home::{Home, eprint_line},
    install::{self, NAMESPACE},
};

/// A machine that was switched off may have to boot first.
const PATIENCE: Duration = Duration::from_mins(1);

/// A step that takes longer is named.
const LONG: Duration = Duration::from_secs(15);

/// What of the cluster must be the same before and after, one name each: not what comes and goes by itself.
const KINDS: &str = "namespaces,customresourcedefinitions,clusterroles,clusterrolebindings,\
    validatingadmissionpolicies,validatingadmissionpolicybindings,validatingwebhookconfigurations,\
    mutatingwebhookconfigurations,persistentvolumes,ingressclasses,priorityclasses";

/// What belongs to namespaces, as users create it.
const NAMESPACED: &str = "services,deployments,daemonsets,statefulsets,jobs,pods,configmaps,secrets,roles,rolebindings,\
    serviceaccounts,networkpolicies,endpointslices,leases";

/// What is there just after Arpeggio has been installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AsNew(Vec<String>);

impl Home {
    /// What is there now: just after the installation, to be compared with later.
    ///
    /// # Errors
    /// When a machine or the API server cannot be asked.
    pub fn as_new(&self) -> anyhow::Result<AsNew> {
        let mut seen = self.lab.furnishings()?;
        seen.extend(self.names(&["get", KINDS, "-o", "name"])?);
        let own = self.names(&["get", NAMESPACED, "-n", "default", "-o", "name"])?;
        seen.extend(own);
        let nodes = "-o=custom-columns=N:.metadata.name,L:.metadata.labels,U:.spec.unschedulable,T:.spec.taints";
        seen.extend(self.names(&["get", "nodes", nodes])?);
        let workloads =
            ["get", "deployments,daemonsets", "-n", NAMESPACE, "-o=jsonpath={.items[*].spec}"];
        seen.extend(self.names(&workloads)?);
        seen.sort();
        Ok(AsNew(seen))
    }

    fn names(&self, args: &[&str]) -> anyhow::Result<Vec<String>> {
        Ok(self.lab.kubectl(args)?.lines().map(str::to_owned).collect())
    }

    /// Makes the cluster as it was, also after faults of machines, cables and Arpeggio itself: what was switched off or cut is
    /// put right, what users have created goes, and Arpeggio runs in new pods that have no past.
    ///
    /// # Errors
    /// When it is not as it was, with what differs.
    pub fn renew(&self, as_new: &AsNew) -> anyhow::Result<()> {
        timed("machines and cables", || Ok(self.lab.put_right(PATIENCE)?))?;
        self.unmark_nodes()?;
        // First, so that nobody writes what is removed next.
        let workloads = ["deployments,daemonsets", "--all", "--cascade=foreground"];
        let delete = [&["delete", "-n", NAMESPACE], &workloads[..]].concat();
        timed("Arpeggio's pods go", || Ok(self.lab.kubectl(&delete)?))?;
        self.lab.kubectl(&["delete", "leases,addresspools", "--all", "-n", NAMESPACE])?;
        timed("what users have created goes", || self.remove_services())?;
        timed("Arpeggio comes", || install::apply(&self.lab))?;
        self.forget_the_past()?;
        let now = self.as_new()?;
        let more = now.0.iter().filter(|it| !as_new.0.contains(it)).collect::<Vec<_>>();
        let less = as_new.0.iter().filter(|it| !now.0.contains(it)).collect::<Vec<_>>();
        ensure!(more.is_empty() && less.is_empty(), "there is {more:#?}, there is not {less:#?}");
        Ok(())
    }
}

/// Says when a step takes long: all that is waited for here adds to the time of every run.
fn timed<T>(step: &str, act: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let begin = Instant::now();
    let done = act();
    if begin.elapsed() > LONG {
        eprint_line(&format!("renewal: {step}: {:.1} s", begin.elapsed().as_secs_f64()));
    }
    done
}
