//! What a drill does to the cluster, and takes back.

use anyhow::{Context as _, anyhow};
use arpeggio_api::{
    lock,
    session::{self, SessionRecord},
};
use arpeggio_election::SessionState;
use arpeggio_runtime::failure::Failure;
use k8s_openapi::api::{coordination::v1::Lease, core::v1::Pod};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams},
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
    pub(super) seconds: u64,
}

impl Act {
    /// Does it.
    pub(super) async fn begin(&self, plan: &Plan) -> anyhow::Result<()> {
        match plan.kind {
            Kind::Handover => {
                let mark = lock::asked_to_move(plan.target(), plan.lock.lock.version);
                let name = lock::name(plan.address);
                self.patch(&name, mark)
                    .await
                    .context("cannot mark the lock; has it changed, or may you not patch Leases?")
            }
            Kind::StopSpeaker => {
                let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.system);
                let name = &plan.owner.instance;
                pods.delete(name, &DeleteParams::default()).await.map(drop).with_context(|| {
                    format!(
                        "cannot delete pod {name}; may you? (kubectl auth can-i delete pods -n {})",
                        self.system
                    )
                })
            }
            Kind::Silence => self.silence(plan).await,
        }
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
                    return done.context(
                        "cannot mark the owner's session; may you? (kubectl auth can-i patch leases)",
                    );
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

    fn leases(&self) -> Api<Lease> {
        Api::namespaced(self.client.clone(), &self.system)
    }
}
