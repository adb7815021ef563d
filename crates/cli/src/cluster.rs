//! Asks the API server where there is something to show without it, too.

use std::time::Duration;

use arpeggio_runtime::client::Patience;
use kube::Client;
use tokio::time::timeout;

use crate::{complaint::complaint, global::Global};

/// How long the API server has.
const PATIENCE: Duration = Duration::from_secs(3);

/// What `read` gets from the API server; the error is for people.
pub(crate) async fn ask<T>(
    global: &Global,
    read: impl AsyncFnOnce(Client) -> anyhow::Result<T>,
) -> Result<T, String> {
    let patience = Patience { connect: PATIENCE, read: Some(PATIENCE), retry: false };
    let answer = async { read(global.connect_with(patience).await?).await };
    match timeout(PATIENCE, answer).await {
        Ok(result) => result.map_err(|error| complaint(&error)),
        Err(_) => Err(format!("no answer from the API server within {PATIENCE:?}")),
    }
}
