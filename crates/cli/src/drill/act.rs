//! What a drill does to the cluster, and takes back.

use anyhow::{Context as _, anyhow};
use arpeggio_api::{
    lock,
    session::{self, SessionRecord},
};
use arpeggio_election::SessionState;
use arpeggio_runtime::failure::{Cause, Failure};
use k8s_openapi::api::{coordination::v1::Lease, core::v1::Pod};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
};
use serde_json::Value;

use super::plan::{Kind, Plan};

/// A session is renewed every few seconds, and a mark is written for one version of it: it may take several times.
const TRIES: u32 = 5;

/// The one who does it.
#[derive(Clone)]
pub(super) struct Act {
    pub(super) client: Client,
    pub(super) system: String,
    /// How long a silence takes.
    seconds: u64,
    /// Of the speaker's pod, where it is deleted and may be read.
    uid: Option<String>,
}

impl Act {
    /// For what the plan says. Nothing is done yet.
    pub(super) async fn prepare(
        client: &Client,
        system: &str,
        seconds: u64,
        plan: &Plan,
    ) -> anyhow::Result<Self> {
        let mut act =
            Self { client: client.clone(), system: system.to_owned(), seconds, uid: None };
        if plan.kind == Kind::StopSpeaker {
            act.uid = act.uid_of(&plan.owner.instance).await?;
        }
        Ok(act)
    }

    /// Who may delete a pod need not be allowed to read it.
    async fn uid_of(&self, name: &str) -> anyhow::Result<Option<String>> {
        match self.pods().get_metadata(name).await {
            Ok(pod) => Ok(pod.metadata.uid),
            Err(error) if Failure::from(&error) == Failure::Refused(Cause::Forbidden) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read pod {name}")),
        }
    }

    /// Does it.
    pub(super) async fn begin(&self, plan: &Plan) -> anyhow::Result<()> {
        match plan.kind {
            Kind::Handover => {
                let mark = lock::asked_to_move(plan.target(), plan.lock.lock.version);
                let name = lock::name(plan.address);
                self.patch(&name, mark).await.context("cannot mark the lock")
            }
            Kind::StopSpeaker => self.stop(&plan.owner.instance).await,
            Kind::Silence => self.silence(plan).await,
        }
    }

    /// Deletes the pod that somebody has agreed to, and no later one of its name.
    async fn stop(&self, name: &str) -> anyhow::Result<()> {
        let only = Preconditions { uid: self.uid.clone(), resource_version: None };
        let params = DeleteParams::default().preconditions(only);
        let deleted = self.pods().delete(name, &params).await.map(drop);
        deleted.with_context(|| format!("cannot delete pod {name}"))
    }

    async fn silence(&self, plan: &Plan) -> anyhow::Result<()> {
        for _ in 0..TRIES {
            let record = self.session(plan).await?;
            let is_the_same = record.newer.is_none()
                && record.session.epoch == plan.owner.session.epoch
                && matches!(record.session.state, SessionState::Live { accused_by: None });
            if !is_the_same {
                return Err(anyhow!("the owner's session has changed meanwhile"));
            }
            let mark = session::silenced(&record.session, self.seconds);
            match self.patch(&session::name(&record.session.node), mark).await {
                Err(error) if Failure::from(&error) == Failure::Conflict => {}
                done => {
                    return done.context("cannot mark the owner's session");
                }
            }
        }
        Err(anyhow!("the owner's session changes all the time"))
    }

    /// Takes back what was not done yet. What is deleted is not: its DaemonSet replaces the pod.
    pub(super) async fn take_back(&self, plan: &Plan) -> anyhow::Result<()> {
        match plan.kind {
            Kind::Handover => {
                let name = lock::name(plan.address);
                let record = lock::parse(&self.leases().get(&name).await?)?;
                if record.lock.move_to.is_some() {
                    self.patch(&name, lock::asked_to_move(None, record.lock.version)).await?;
                }
            }
            Kind::StopSpeaker => {}
            Kind::Silence => {
                let record = self.session(plan).await?;
                if record.silence.is_some() {
                    let name = session::name(&record.session.node);
                    self.patch(&name, session::heard_again(record.session.version)).await?;
                }
            }
        }
        Ok(())
    }

    async fn session(&self, plan: &Plan) -> anyhow::Result<SessionRecord> {
        let name = session::name(&plan.owner.session.node);
        let lease =
            self.leases().get(&name).await.with_context(|| format!("cannot read Lease {name}"))?;
        Ok(session::parse(&lease)?)
    }

    async fn patch(&self, name: &str, patch: Value) -> kube::Result<()> {
        let patch = Patch::Merge(patch);
        self.leases().patch(name, &PatchParams::default(), &patch).await.map(drop)
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.system)
    }

    fn leases(&self) -> Api<Lease> {
        Api::namespaced(self.client.clone(), &self.system)
    }
}

#[cfg(test)]
mod tests {
    use http::{Method, Request, Response};
    use kube::{client::Body, core::Status};
    use serde_json::json;

    use super::*;

    /// An API server with one pod, which it lets be read or not, and which it deletes as that only.
    fn act(is_readable: bool) -> Act {
        let answer = move |request: Request<Body>| async move {
            let method = request.method().clone();
            let body = request.into_body().collect_bytes().await.unwrap();
            let asked: Value = serde_json::from_slice(&body).unwrap_or_default();
            let uid = &asked["preconditions"]["uid"];
            let (code, words) = match method {
                Method::GET if !is_readable => (403, "pods \"a\" is forbidden: User x cannot get"),
                Method::DELETE if !uid.is_null() && *uid != "u1" => (409, "the uid is another one"),
                _ => (200, ""),
            };
            let pod = json!({ "metadata": { "name": "a", "uid": "u1" } });
            let status = Status::failure(words, "").with_code(code);
            let body = if code == 200 { pod } else { serde_json::to_value(status).unwrap() };
            Response::builder().status(code).body(Body::from(body.to_string().into_bytes()))
        };
        let client = Client::new(tower::service_fn(answer), "default");
        Act { client, system: "lb".to_owned(), seconds: 5, uid: None }
    }

    #[tokio::test]
    async fn the_pod_that_was_agreed_to_is_deleted_and_no_later_one() {
        let mut act = act(true);
        act.uid = act.uid_of("a").await.unwrap();
        assert_eq!(act.uid.as_deref(), Some("u1"));
        act.stop("a").await.unwrap();
        act.uid = Some("u0".to_owned());
        assert!(act.stop("a").await.is_err());
    }

    #[tokio::test]
    async fn who_may_only_delete_pods_may_do_it_too() {
        let act = act(false);
        assert_eq!(act.uid_of("a").await.unwrap(), None);
        act.stop("a").await.unwrap();
    }
}
