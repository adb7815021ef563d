//! What Arpeggio's programs in the cluster are told, as their Deployment and DaemonSet say.

use std::{collections::BTreeMap, time::Duration};

use arpeggio_doctor::facts::Component;
use clap::builder::{BoolishValueParser, TypedValueParser as _};
use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment},
    core::v1,
};
use kube::{Api, Client, ResourceExt as _, api::ListParams};

use crate::{gaps::Gap, reader};

/// What selects the objects of an installation.
pub(crate) const NAME: &str = "app.kubernetes.io/name=arpeggio";

/// The name of `MetalLB`'s `ConfigMap`, unless the controller is told another one.
pub(crate) const METALLB_CONFIG_MAP: &str = "config";

/// The label that all of them have.
pub(crate) const PART: (&str, &str) = ("app.kubernetes.io/name", "arpeggio");
const COMPONENT: &str = "app.kubernetes.io/component";

/// Whether an object with these labels is of an installation.
pub(crate) fn is_part(labels: &BTreeMap<String, String>) -> bool {
    labels.get(PART.0).is_some_and(|it| it == PART.1)
}

/// Whether an object with these labels is of this program.
pub(crate) fn is(labels: &BTreeMap<String, String>, component: Component) -> bool {
    labels.get(COMPONENT).is_some_and(|it| it == component.as_str())
}

/// Whether a pod is over, evicted say: Kubernetes keeps it though another one has replaced it.
pub(crate) fn has_ended(pod: &v1::Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|it| it.phase.as_deref());
    phase.is_some_and(|it| ["Failed", "Succeeded"].contains(&it))
}

/// The container of the program itself. A mesh may have put one of its own before it.
pub(crate) fn program(spec: &v1::PodSpec, component: Component) -> Option<&v1::Container> {
    let named = spec.containers.iter().find(|it| it.name == component.as_str());
    named.or_else(|| spec.containers.first())
}

/// The same in a template of pods.
pub(crate) fn container(
    template: &v1::PodTemplateSpec,
    component: Component,
) -> Option<&v1::Container> {
    program(template.spec.as_ref()?, component)
}

/// Whether speakers announce from excluded nodes, too. What may not be read, or is not there, says nothing.
pub(crate) async fn ignores_exclusion(client: &Client, namespace: &str) -> bool {
    let sets = daemon_sets(client, namespace).await.unwrap_or_default();
    let speaker =
        speakers(&sets).and_then(|it| container(&it.spec.as_ref()?.template, Component::Speaker));
    speaker.is_some_and(|it| is_on(it, "ignore-exclusion-label"))
}

/// The Deployments of the installation in `namespace`.
pub(crate) async fn deployments(client: &Client, namespace: &str) -> Result<Vec<Deployment>, Gap> {
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), namespace);
    reader::list(&deployments, &ListParams::default().labels(NAME)).await
}

/// The `DaemonSet`s of the installation in `namespace`.
pub(crate) async fn daemon_sets(client: &Client, namespace: &str) -> Result<Vec<DaemonSet>, Gap> {
    let sets: Api<DaemonSet> = Api::namespaced(client.clone(), namespace);
    reader::list(&sets, &ListParams::default().labels(NAME)).await
}

/// The one of the speakers.
pub(crate) fn speakers(sets: &[DaemonSet]) -> Option<&DaemonSet> {
    sets.iter().find(|it| is(it.labels(), Component::Speaker))
}

/// Which Services the controller serves, for how long they keep what no pool allows, and where it looks for pools that are not
/// `AddressPool`s, as its Deployment says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Duties {
    /// The `spec.loadBalancerClass` that it serves. `None`: those without any.
    pub(crate) class: Option<String>,
    /// For how long a Service keeps an address that no pool allows any more.
    pub(crate) grace: Duration,
    /// The `ConfigMap` with pools.
    pub(crate) config_map: String,
    /// Its key.
    pub(crate) key: String,
    /// The namespace of `MetalLB`'s objects, and the name of its `ConfigMap` there.
    pub(crate) metallb: Option<(String, String)>,
}

/// What a controller does unless told otherwise.
impl Default for Duties {
    fn default() -> Self {
        Self::of(None)
    }
}

impl Duties {
    /// As the installation in `namespace` has it.
    pub(crate) async fn read(client: &Client, namespace: &str) -> Result<Self, Gap> {
        Ok(Self::among(&deployments(client, namespace).await?))
    }

    /// As the controller's Deployment has it, which is one of these. Without one, what a controller does unless told otherwise.
    pub(crate) fn among(deployments: &[Deployment]) -> Self {
        let controller = deployments.iter().find(|it| is(it.labels(), Component::Controller));
        let template = controller.and_then(|it| Some(&it.spec.as_ref()?.template));
        Self::of(template.and_then(|it| container(it, Component::Controller)))
    }

    fn of(container: Option<&v1::Container>) -> Self {
        let said = |name: &str| setting(container?, name);
        let or = |name: &str, default: &str| said(name).unwrap_or_else(|| default.to_owned());
        let metallb = said("metallb-namespace");
        let grace = said("grace-period").and_then(|it| it.parse().ok()).unwrap_or(600);
        Self {
            class: said("load-balancer-class"),
            grace: Duration::from_secs(grace),
            config_map: or("config-map", "arpeggio"),
            key: or("config-map-key", "config"),
            metallb: metallb.map(|it| (it, or("metallb-config-map", METALLB_CONFIG_MAP))),
        }
    }
}

/// What one of our programs is told.
fn setting(container: &v1::Container, name: &str) -> Option<String> {
    let variable = format!("ARPEGGIO_{}", name.replace('-', "_").to_uppercase());
    told(container, &format!("--{name}"), &variable)
}

/// What a program is told by an argument or, without one, by a variable. What is empty says nothing.
pub(crate) fn told(container: &v1::Container, flag: &str, variable: &str) -> Option<String> {
    let args = arguments(container);
    let with_value = |(at, arg): (usize, &&String)| match arg.strip_prefix(flag)? {
        "" => args.get(at + 1).map(|it| (*it).clone()),
        rest => rest.strip_prefix('=').map(str::to_owned),
    };
    let of_variable = || {
        let variables = container.env.as_deref().unwrap_or_default();
        variables.iter().find(|it| it.name == variable)?.value.clone()
    };
    let said = args.iter().enumerate().find_map(with_value).or_else(of_variable);
    said.filter(|it| !it.is_empty())
}

/// Some write all in `command`.
fn arguments(container: &v1::Container) -> Vec<&String> {
    container.command.iter().chain(&container.args).flatten().collect()
}

/// Whether a switch is on, which has no value as an argument.
pub(crate) fn is_on(container: &v1::Container, name: &str) -> bool {
    let flag = format!("--{name}");
    arguments(container).into_iter().any(|it| *it == flag) || switch(container, name) == Some(true)
}

/// Whether what is on by itself was switched off.
pub(crate) fn is_off(container: &v1::Container, name: &str) -> bool {
    switch(container, name) == Some(false)
}

/// What a program takes the word for that it is told. One that it does not understand it does not start with.
fn switch(container: &v1::Container, name: &str) -> Option<bool> {
    let word = setting(container, name)?;
    BoolishValueParser::new().parse_ref(&clap::Command::new(""), None, word.as_ref()).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn switches_are_set_by_arguments_and_variables() {
        let container = |rest: serde_json::Value| -> v1::Container {
            let mut container = json!({ "name": "speaker" });
            container.as_object_mut().unwrap().append(&mut rest.as_object().unwrap().clone());
            serde_json::from_value(container).unwrap()
        };
        let variable = |name: &str, value: &str| {
            container(json!({ "env": [{ "name": name, "value": value }] }))
        };
        let ignores = |it: &v1::Container| is_on(it, "ignore-exclusion-label");
        assert!(!ignores(&container(json!({}))));
        assert!(ignores(&container(json!({ "args": ["--ignore-exclusion-label"] }))));
        assert!(ignores(&container(json!({ "command": ["/x", "--ignore-exclusion-label"] }))));
        for word in ["true", "True", "yes", "Y", "t", "on", "1"] {
            assert!(ignores(&variable("ARPEGGIO_IGNORE_EXCLUSION_LABEL", word)), "{word}");
        }
        for word in ["false", "no", "off", "0", "", "maybe"] {
            assert!(!ignores(&variable("ARPEGGIO_IGNORE_EXCLUSION_LABEL", word)), "{word:?}");
        }
        let elects = |it: &v1::Container| !is_off(it, "leader-election");
        assert!(elects(&container(json!({}))));
        assert!(elects(&variable("ARPEGGIO_LEADER_ELECTION", "yes")));
        assert!(!elects(&variable("ARPEGGIO_LEADER_ELECTION", "No")));
        assert!(!elects(&container(json!({ "args": ["--leader-election", "false"] }))));
        assert!(!elects(&container(json!({ "args": ["--leader-election=off"] }))));
        // As the component for one node, and the chart, have it.
        let patch = include_str!("../../../manifests/components/single-node/speaker.yaml");
        assert!(patch.contains("ARPEGGIO_IGNORE_EXCLUSION_LABEL"), "{patch}");
    }

    #[test]
    fn the_controller_says_which_class_it_serves() {
        let class = |container: serde_json::Value| {
            Duties::of(Some(&serde_json::from_value(container).unwrap())).class
        };
        let variable = json!({ "name": "controller",
            "env": [{ "name": "ARPEGGIO_LOAD_BALANCER_CLASS", "value": "arpeggio.dev/l2" }] });
        assert_eq!(class(variable).as_deref(), Some("arpeggio.dev/l2"));
        assert_eq!(
            class(json!({ "name": "controller", "args": ["--load-balancer-class="] })),
            None
        );
    }

    #[test]
    fn the_controller_says_for_how_long_it_lets_services_keep_what_no_pool_allows() {
        let variable = json!({ "name": "controller",
            "env": [{ "name": "ARPEGGIO_GRACE_PERIOD", "value": "3600" }] });
        let container = serde_json::from_value(variable).unwrap();
        assert_eq!(Duties::of(Some(&container)).grace, Duration::from_hours(1));
    }

    #[test]
    fn the_controller_says_where_pools_are() {
        let places = |container: serde_json::Value| {
            Duties::of(Some(&serde_json::from_value(container).unwrap()))
        };
        let all = |config_map: &str, metallb: Option<(&str, &str)>| Duties {
            class: None,
            grace: Duration::from_mins(10),
            config_map: config_map.to_owned(),
            key: "config".to_owned(),
            metallb: metallb.map(|(one, other)| (one.to_owned(), other.to_owned())),
        };
        assert_eq!(Duties::of(None), all("arpeggio", None));
        let args = json!({ "name": "controller", "args": [
            "--metallb-namespace=metallb-system", "--config-map", "pools", "--metallb-config-map=",
        ] });
        assert_eq!(places(args), all("pools", Some(("metallb-system", "config"))));
        let variables = json!({ "name": "controller", "env": [
            { "name": "ARPEGGIO_METALLB_NAMESPACE", "value": "lb" },
            { "name": "ARPEGGIO_METALLB_CONFIG_MAP", "value": "old" },
        ] });
        assert_eq!(places(variables), all("arpeggio", Some(("lb", "old"))));
        let unset = json!({ "name": "controller", "args": ["--metallb-namespace="] });
        assert_eq!(places(unset), all("arpeggio", None));
    }
}
