//! A token that a command prints with the time at which it expires (`users[].user.exec`). The command is run again shortly before.
//!
//! The library would run it three times at the beginning: for a certificate that it may print as well, for the token, and once more
//! for what was looked at here. A person who is asked for a code would be asked each time, and a code for one use is refused then.

use std::sync::Arc;

use axum::http::{HeaderValue, Request, header::AUTHORIZATION};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::config::ExecConfig;
use tokio::{sync::Mutex, task::spawn_blocking};

use crate::{
    credentials::{CredentialError, Printed, printed},
    server_clock,
};

/// So long before it expires, a token is not used any more. Its request has to reach the API server.
const MARGIN: SignedDuration = SignedDuration::from_secs(10);

/// The command and what it has printed last. Clones share both.
#[derive(Debug, Clone)]
pub(crate) struct PrintedToken {
    exec: Arc<ExecConfig>,
    known: Arc<Mutex<Known>>,
}

/// A token that a header can carry.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) header: HeaderValue,
    /// `None`: it is good for as long as the process runs.
    pub(crate) expires: Option<Timestamp>,
}

impl Known {
    fn is_good(&self, now: Timestamp) -> bool {
        self.expires.is_none_or(|it| it.duration_since(now) > MARGIN)
    }
}

impl PrintedToken {
    /// The command has been run once.
    pub(crate) fn new(exec: ExecConfig, known: Known) -> Self {
        Self { exec: Arc::new(exec), known: Arc::new(Mutex::new(known)) }
    }

    /// The request in the name of whose token it is.
    pub(crate) async fn signed<B>(
        self,
        mut request: Request<B>,
    ) -> Result<Request<B>, CredentialError> {
        let header = self.header(server_clock::now()).await?;
        request.headers_mut().insert(AUTHORIZATION, header);
        Ok(request)
    }

    /// Who asks meanwhile waits for the same run.
    async fn header(&self, now: Timestamp) -> Result<HeaderValue, CredentialError> {
        let mut known = self.known.lock().await;
        if !known.is_good(now) {
            let exec = Arc::clone(&self.exec);
            // It fails only where the process ends.
            if let Ok(again) = spawn_blocking(move || printed(&exec)).await {
                *known = match again? {
                    Printed::Token(token) => token,
                    Printed::Certificate { .. } => {
                        return Err(CredentialError::not_understood(&self.exec));
                    }
                };
            }
        }
        Ok(known.header.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::{env, fs};

    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn the_command_is_run_again_before_its_token_expires_only() {
        let file = env::temp_dir().join(format!("arpeggio-runs-{}", std::process::id()));
        let expires: Timestamp = "2026-01-01T12:00:00Z".parse().unwrap();
        let script = format!(
            r#"echo >> {0}; printf '{{"status": {{"token": "t%s", "expirationTimestamp": "{expires}"}}}}' "$(wc -l < {0} | tr -d ' ')""#,
            file.display()
        );
        let exec = json!({ "command": "sh", "args": ["-c", script], "interactiveMode": "Never" });
        let exec: ExecConfig = serde_json::from_value(exec).unwrap();
        let Printed::Token(known) = printed(&exec).unwrap() else { panic!("it prints a token") };
        let token = PrintedToken::new(exec, known);
        let at = async |seconds: i64| {
            let header = token.header(expires + SignedDuration::from_secs(seconds)).await.unwrap();
            assert!(header.is_sensitive());
            header.to_str().unwrap().to_owned()
        };
        assert_eq!(at(-3600).await, "Bearer t1");
        assert_eq!(at(-11).await, "Bearer t1");
        assert_eq!(at(-5).await, "Bearer t2");
        fs::remove_file(&file).unwrap();
    }
}
