//! A program of ours in the pod of a speaker, which says when it is ready and is told when to go on, line by line.

use std::time::Duration;

use arpeggio_doctor::Known;
use arpeggio_runtime::failure::{Cause, Failure};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::{AttachParams, AttachedProcess},
};
use tokio::io::{
    AsyncBufRead, AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite,
    AsyncWriteExt as _, BufReader,
};

use crate::complaint::words;

/// The word that says that it is ready.
pub(crate) const READY: &str = "ready";

/// The container whose programs these are.
pub(crate) const CONTAINER: &str = "speaker";

/// A program that only prints something does not take longer, nor prints more bytes.
const PRINTING: Duration = Duration::from_secs(10);
const PRINTED: u64 = 1 << 20;

/// The running program.
pub(crate) struct InPod {
    process: AttachedProcess,
    input: Box<dyn AsyncWrite + Send + Unpin>,
    lines: Lines,
}

type Lines = Box<dyn AsyncBufRead + Send + Unpin>;

impl InPod {
    /// Starts `/arpeggio` with these arguments, and waits until it is ready.
    pub(crate) async fn start(pods: &Api<Pod>, pod: &str, args: &[&str]) -> Known<Self> {
        let command = ["/arpeggio"].iter().chain(args).copied();
        let streams =
            AttachParams::default().container(CONTAINER).stdin(true).stdout(true).stderr(true);
        let mut process =
            pods.exec(pod, command, &streams).await.map_err(|error| refused(&error))?;
        let input = Box::new(process.stdin().ok_or("no input")?);
        let lines: Lines = Box::new(BufReader::new(process.stdout().ok_or("no output")?));
        let mut started = Self { process, input, lines };
        match started.next().await?.trim() {
            READY => Ok(started),
            _ => Err(started.complaint().await),
        }
    }

    /// Tells it to go on.
    pub(crate) async fn go_on(&mut self) -> Known<()> {
        self.input.write_all(b"go\n").await.map_err(|error| error.to_string())?;
        self.input.flush().await.map_err(|error| error.to_string())
    }

    /// The next line that it writes; an error when it has ended.
    pub(crate) async fn answer(&mut self) -> Known<String> {
        let line = self.next().await?;
        if line.is_empty() { Err(self.complaint().await) } else { Ok(line) }
    }

    async fn next(&mut self) -> Known<String> {
        next(&mut self.lines).await
    }

    /// What a program that failed has written.
    async fn complaint(&mut self) -> String {
        let Some(errors) = self.process.stderr() else { return "it said nothing".to_owned() };
        let mut lines: Lines = Box::new(BufReader::new(errors));
        let mut said = String::new();
        while let Ok(line) = next(&mut lines).await
            && !line.is_empty()
        {
            said.push_str(&line);
        }
        format!("its speaker's pod could not look: {}", said.trim())
    }
}

async fn next(lines: &mut Lines) -> Known<String> {
    let mut line = String::new();
    lines.read_line(&mut line).await.map_err(|error| error.to_string())?;
    Ok(line)
}

/// All that a program prints which asks for nothing.
pub(crate) async fn printed(pods: &Api<Pod>, pod: &str, command: [&str; 2]) -> Known<String> {
    let printing = async {
        let streams = AttachParams::default().container(CONTAINER).stdout(true).stderr(true);
        let started = pods.exec(pod, command, &streams).await;
        let mut process = started.map_err(|error| refused(&error))?;
        let said = text(process.stdout().ok_or("no output")?).await?;
        let complaint = text(process.stderr().ok_or("no errors")?).await?;
        if complaint.is_empty() { Ok(said) } else { Err(complaint.trim().to_owned()) }
    };
    let in_time = tokio::time::timeout(PRINTING, printing).await;
    in_time.unwrap_or_else(|_| Err(format!("{command:?} has not ended within {PRINTING:?}")))
}

async fn text(stream: impl AsyncRead + Unpin) -> Known<String> {
    let mut text = String::new();
    let read = stream.take(PRINTED).read_to_string(&mut text).await;
    read.map(|_| text).map_err(|error| error.to_string())
}

/// Why no program runs in a pod.
pub(crate) fn refused(error: &kube::Error) -> String {
    match Failure::from(error) {
        Failure::Refused(Cause::Forbidden) => {
            "you need the permission to \"create\" and \"get\" pods/exec in Arpeggio's namespace"
                .to_owned()
        }
        _ => format!("no program could be started in its pod: {}", words(error)),
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    #[test]
    fn a_policy_that_says_no_is_no_missing_permission() {
        let told = |code: u16, message: &str| {
            let status = Status::failure(message, "").with_code(code);
            refused(&kube::Error::Api(status.boxed()))
        };
        let forbidden = told(403, "pods \"a\" is forbidden: User x cannot create pods/exec");
        assert!(forbidden.starts_with("you need the permission"), "{forbidden}");
        let denied = told(403, "admission webhook \"no-exec\" denied the request: not here");
        assert!(denied.contains("denied the request: not here"), "{denied}");
    }
}
