//! What Arpeggio's programs need to do, and whether the API server lets them.

use arpeggio_doctor::{
    Known,
    facts::{Component, Permission},
};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use kube::{Api, Client};

use super::kubernetes::{create, each};

/// Objects that a program does something with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Need {
    who: Component,
    /// The API group.
    group: &'static str,
    /// The resource, with its subresource.
    resource: &'static str,
    /// The only object's name.
    name: &'static str,
    /// Whether in Arpeggio's namespace only.
    inside: bool,
    verbs: &'static [&'static str],
}

const fn need(
    who: Component,
    group: &'static str,
    resource: &'static str,
    verbs: &'static [&'static str],
) -> Need {
    Need { who, group, resource, name: "", inside: false, verbs }
}

const fn inside(need: Need) -> Need {
    Need { inside: true, ..need }
}

const fn named(name: &'static str, need: Need) -> Need {
    Need { name, ..need }
}

const LEASES: &str = "coordination.k8s.io";

/// The rules of `manifests/base`.
const NEEDS: &[Need] = &[
    need(Component::Controller, "", "services", &["get", "list", "watch"]),
    need(Component::Controller, "", "services/status", &["patch"]),
    need(Component::Controller, "", "namespaces", &["list", "watch"]),
    need(Component::Controller, "", "nodes", &["list", "watch"]),
    need(Component::Controller, "networking.k8s.io", "servicecidrs", &["list", "watch"]),
    need(Component::Controller, "arpeggio.dev", "addresspools", &["list", "watch"]),
    need(Component::Controller, "arpeggio.dev", "addresspools/status", &["patch"]),
    named("controller-leader", need(Component::Controller, LEASES, "leases", &["list", "watch"])),
    need(Component::Controller, "events.k8s.io", "events", &["create"]),
    inside(need(
        Component::Controller,
        LEASES,
        "leases",
        &["get", "list", "watch", "create", "patch", "delete"],
    )),
    named("arpeggio", inside(need(Component::Controller, "", "configmaps", &["list", "watch"]))),
    inside(need(
        Component::Speaker,
        LEASES,
        "leases",
        &["get", "list", "watch", "create", "patch"],
    )),
    need(Component::Speaker, "events.k8s.io", "events", &["create"]),
    need(Component::Speaker, "", "nodes", &["list", "watch"]),
    need(Component::Speaker, "discovery.k8s.io", "endpointslices", &["list", "watch"]),
];

/// Asks the API server about all of them.
pub(super) async fn read(client: &Client, namespace: &str) -> Known<Vec<Permission>> {
    let single = NEEDS.iter().flat_map(|need| need.verbs.iter().map(move |verb| (need, *verb)));
    let reviews = each(single.collect(), |(need, verb)| review(client, namespace, need, verb));
    reviews.await.into_iter().collect()
}

async fn review(client: &Client, namespace: &str, need: &Need, verb: &str) -> Known<Permission> {
    let api: Api<SubjectAccessReview> = Api::all(client.clone());
    let review =
        SubjectAccessReview { spec: spec(namespace, need, verb), ..SubjectAccessReview::default() };
    let answer = create(&api, &review).await?;
    let allowed = answer.status.is_some_and(|status| status.allowed);
    Ok(Permission { who: need.who, what: described(need, verb), allowed })
}

fn spec(namespace: &str, need: &Need, verb: &str) -> SubjectAccessReviewSpec {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let (resource, subresource) = need.resource.split_once('/').unwrap_or((need.resource, ""));
    let attributes = ResourceAttributes {
        group: some(need.group),
        resource: some(resource),
        subresource: some(subresource),
        name: some(need.name),
        namespace: need.inside.then(|| namespace.to_owned()),
        verb: some(verb),
        ..ResourceAttributes::default()
    };
    let groups = [
        "system:serviceaccounts".to_owned(),
        format!("system:serviceaccounts:{namespace}"),
        "system:authenticated".to_owned(),
    ];
    SubjectAccessReviewSpec {
        user: Some(format!("system:serviceaccount:{namespace}:arpeggio-{}", need.who.as_str())),
        groups: Some(groups.into()),
        resource_attributes: Some(attributes),
        ..SubjectAccessReviewSpec::default()
    }
}

fn described(need: &Need, verb: &str) -> String {
    let group = if need.group.is_empty() { String::new() } else { format!(".{}", need.group) };
    let place = if need.inside { " in its namespace" } else { "" };
    format!("{verb} {}{group}{place}", need.resource)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use http::{Request, Response};
    use kube::{client::Body, core::Status};
    use serde_json::Value;

    use super::*;

    /// Why nothing is known where the API server answers everything with this.
    async fn refused(status: Status) -> String {
        let answer = move |_: Request<Body>| {
            let answer = serde_json::to_vec(&status).map(Body::from).unwrap();
            let code = status.code;
            async move { Response::builder().status(code).body(answer) }
        };
        read(&Client::new(tower::service_fn(answer), "default"), "lb").await.unwrap_err()
    }

    #[tokio::test]
    async fn the_permission_to_ask_is_named_where_it_is_missing_only() {
        let status = |code, reason: &str| Status::failure(reason, reason).with_code(code);
        let told = refused(status(401, "Unauthorized")).await;
        let what = "subjectaccessreviews (API group \"authorization.k8s.io\", cluster-wide)";
        assert_eq!(told, format!("{what}: Unauthorized"));
        let told = refused(status(403, "Forbidden")).await;
        assert_eq!(told, format!("{what}: you need the permission to \"create\" them"));
    }

    type Rule = (String, String, String, String, bool);

    /// The rules of a component's `Role` and `ClusterRole`, one by one.
    fn installed(who: Component) -> BTreeSet<Rule> {
        let manifest = match who {
            Component::Controller => include_str!("../../../../manifests/base/controller.yaml"),
            Component::Speaker => include_str!("../../../../manifests/base/speaker.yaml"),
        };
        let documents =
            manifest.split("\n---\n").map(|it| serde_saphyr::from_str::<Value>(it).unwrap());
        let roles =
            documents.filter(|it| ["Role", "ClusterRole"].contains(&it["kind"].as_str().unwrap()));
        roles.flat_map(|role| rules(&role)).collect()
    }

    fn rules(role: &Value) -> Vec<Rule> {
        let texts = |value: &Value| -> Vec<String> {
            let items = value.as_array().into_iter().flatten();
            items.map(|it| it.as_str().unwrap().to_owned()).collect()
        };
        let inside = role["kind"] == "Role";
        let mut rules = Vec::new();
        for rule in role["rules"].as_array().unwrap() {
            let names = texts(&rule["resourceNames"]);
            let names = if names.is_empty() { vec![String::new()] } else { names };
            for group in texts(&rule["apiGroups"]) {
                for resource in texts(&rule["resources"]) {
                    for (verb, name) in texts(&rule["verbs"])
                        .iter()
                        .flat_map(|verb| names.iter().map(move |name| (verb, name)))
                    {
                        rules.push((
                            group.clone(),
                            resource.clone(),
                            verb.clone(),
                            name.clone(),
                            inside,
                        ));
                    }
                }
            }
        }
        rules
    }

    #[test]
    fn what_is_needed_is_what_is_installed() {
        for who in [Component::Controller, Component::Speaker] {
            let needs = NEEDS.iter().filter(|need| need.who == who);
            let needs: BTreeSet<Rule> = needs
                .flat_map(|need| need.verbs.iter().map(move |verb| (need, verb)))
                .map(|(need, verb)| {
                    let text = |text: &str| text.to_owned();
                    (
                        text(need.group),
                        text(need.resource),
                        text(verb),
                        text(need.name),
                        need.inside,
                    )
                })
                .collect();
            assert_eq!(needs, installed(who), "{who:?}");
        }
    }

    #[test]
    fn a_need_is_said_as_kubectl_does() {
        let needs: Vec<String> = NEEDS.iter().map(|it| described(it, it.verbs[0])).collect();
        assert!(needs.contains(&"get leases.coordination.k8s.io in its namespace".to_owned()));
        assert!(needs.contains(&"patch services/status".to_owned()), "{needs:?}");
    }
}
