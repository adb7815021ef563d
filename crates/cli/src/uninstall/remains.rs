//! What is left after the command, and which commands delete it.

use std::fmt;

use super::found::{Found, LABEL};

/// What kubectl or Helm have to remove: whatever was installed has its own records there.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Remains {
    /// In the order in which they are to be given.
    commands: Vec<String>,
    /// The release of Helm that those commands delete.
    release: Option<String>,
    /// The pools that those commands delete.
    lost: Vec<String>,
    /// The pools that stay with their definition.
    pools: usize,
    /// Whether their definition stays.
    definition: bool,
}

impl Remains {
    /// `without_pools`: no pool is to stay.
    pub(super) fn of(found: &Found, without_pools: bool) -> Self {
        let namespace = &found.namespace;
        let mut commands = match &found.helm_release {
            Some(release) => vec![format!("helm uninstall {release} --namespace {namespace}")],
            None => by_kubectl(found),
        };
        let (lost, pools) = if without_pools {
            (Vec::new(), 0)
        } else {
            let lost = found.helm_pools.clone();
            let pools = found.pools.len().saturating_sub(lost.len());
            (lost, pools)
        };
        let definition = pools > 0 || !lost.is_empty();
        if !definition {
            commands
                .push("kubectl delete --ignore-not-found crd addresspools.arpeggio.dev".to_owned());
        }
        Self { commands, release: found.helm_release.clone(), lost, pools, definition }
    }
}

fn by_kubectl(found: &Found) -> Vec<String> {
    let mut kinds = vec!["clusterroles", "clusterrolebindings", "flowschemas"];
    if found.has_policy {
        kinds.extend(["validatingadmissionpolicies", "validatingadmissionpolicybindings"]);
    }
    // kubectl deletes nothing at all when the API server does not know one of the kinds.
    if found.groups.contains("security.openshift.io") {
        kinds.push("securitycontextconstraints");
    }
    let kinds = kinds.join(",");
    vec![
        namespaced(found),
        // What the component metallb has put into MetalLB's namespace.
        format!("kubectl delete roles,rolebindings --all-namespaces --selector {LABEL}"),
        format!("kubectl delete {kinds} --selector {LABEL}"),
    ]
}

/// The command for what is in the namespace.
fn namespaced(found: &Found) -> String {
    let namespace = &found.namespace;
    if !found.is_shared {
        return format!("kubectl delete namespace {namespace}");
    }
    let mut kinds =
        vec!["serviceaccounts", "resourcequotas", "networkpolicies", "poddisruptionbudgets"];
    if found.groups.contains("monitoring.coreos.com") {
        kinds.extend(["podmonitors", "prometheusrules"]);
    }
    let kinds = kinds.join(",");
    format!("kubectl delete {kinds} --namespace {namespace} --selector {LABEL}")
}

impl fmt::Display for Remains {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "To remove the rest:")?;
        for command in &self.commands {
            writeln!(f, "  {command}")?;
        }
        if let Some(release) = &self.release {
            writeln!(
                f,
                "If Arpeggio's chart is a part of another one, all of {release} goes by that. Set `enabled` of Arpeggio's to false instead, and `helm upgrade`."
            )?;
        }
        if !self.lost.is_empty() {
            write_lost(f, &self.lost)?;
        }
        let stays = match self.pools {
            0 => "The definition of AddressPools stays. To delete it, too:".to_owned(),
            pools => {
                format!(
                    "The AddressPools ({pools}) stay, with their definition. To delete them, too:"
                )
            }
        };
        if self.definition {
            writeln!(f, "{stays}\n  kubectl delete crd addresspools.arpeggio.dev")?;
        }
        Ok(())
    }
}

/// Helm reads what it is to keep in the release and not in the object, so an annotation would keep nothing.
fn write_lost(f: &mut fmt::Formatter<'_>, pools: &[String]) -> fmt::Result {
    let (listed, names) = (pools.join(", "), pools.join(" "));
    writeln!(
        f,
        "Helm deletes the AddressPools {listed}, which are values of its release. To keep them, before that:"
    )?;
    writeln!(f, "  kubectl get addresspools.arpeggio.dev {names} -o yaml > pools.yaml")?;
    writeln!(f, "and after it:\n  kubectl apply -f pools.yaml")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found() -> Found {
        Found { namespace: "lb".into(), pools: vec!["home".into()], ..Found::default() }
    }

    #[test]
    fn pools_stay_unless_somebody_says_otherwise() {
        let kept = Remains::of(&found(), false).to_string();
        assert!(kept.contains("kubectl delete namespace lb\n"), "{kept}");
        assert!(kept.contains("The AddressPools (1) stay"), "{kept}");
        let without = Remains::of(&found(), true).to_string();
        assert!(!without.contains("stay"), "{without}");
        assert!(without.contains("crd addresspools.arpeggio.dev"), "{without}");
    }

    #[test]
    fn what_helm_installed_helm_removes() {
        let found = Found { helm_release: Some("lb-release".into()), ..found() };
        let commands = Remains::of(&found, false).commands;
        assert_eq!(commands, ["helm uninstall lb-release --namespace lb"]);
        let text = Remains::of(&found, false).to_string();
        assert!(text.contains("all of lb-release goes by that"), "{text}");
    }

    #[test]
    fn pools_that_go_with_the_release_are_named_before_they_do() {
        let found = |pools: &[&str]| Found {
            helm_release: Some("lb-release".into()),
            helm_pools: vec!["home".into(), "dmz".into()],
            pools: pools.iter().map(|it| (*it).to_owned()).collect(),
            ..found()
        };
        let of = |pools: &[&str], without| Remains::of(&found(pools), without).to_string();
        let some = of(&["dmz", "home", "own"], false);
        assert!(some.contains("Helm deletes the AddressPools home, dmz, "), "{some}");
        let kept = "kubectl get addresspools.arpeggio.dev home dmz -o yaml > pools.yaml\n";
        assert!(some.contains(kept), "{some}");
        assert!(some.contains("The AddressPools (1) stay, with their definition."), "{some}");
        let all = of(&["dmz", "home"], false);
        assert!(
            !all.contains("AddressPools (") && all.contains("definition of AddressPools stays")
        );
        let deleted = of(&["dmz", "home"], true);
        assert!(!deleted.contains("Helm deletes") && !deleted.contains("stay"), "{deleted}");
    }

    #[test]
    fn what_is_in_other_namespaces_is_removed_too() {
        let commands = Remains::of(&found(), false).commands;
        let expected =
            format!("kubectl delete roles,rolebindings --all-namespaces --selector {LABEL}");
        assert!(commands.contains(&expected), "{commands:?}");
    }

    #[test]
    fn a_namespace_that_others_use_stays() {
        let of = |groups: &[&str]| {
            let groups = groups.iter().map(|it| (*it).to_owned()).collect();
            let shared = Found { is_shared: true, groups, ..found() };
            Remains::of(&shared, false).commands
        };
        let commands = of(&[]);
        assert!(commands.iter().all(|it| !it.contains("delete namespace")), "{commands:?}");
        let expected = "kubectl delete serviceaccounts,resourcequotas,networkpolicies,poddisruptionbudgets \
                        --namespace lb --selector app.kubernetes.io/part-of=arpeggio";
        assert_eq!(commands[0], expected);
        assert!(of(&["monitoring.coreos.com"])[0].contains(",podmonitors,prometheusrules "));
    }

    #[test]
    fn what_openshift_alone_has_is_named_there_only() {
        let of = |group: &str| {
            let found = Found { groups: [group.to_owned()].into(), ..found() };
            Remains::of(&found, false).commands[2].contains("securitycontextconstraints")
        };
        assert!(of("security.openshift.io"));
        assert!(!of("apps"));
    }

    #[test]
    fn policies_are_named_where_they_are() {
        let found = Found { has_policy: true, ..found() };
        assert!(Remains::of(&found, false).commands[2].contains("validatingadmissionpolicies"));
    }
}
