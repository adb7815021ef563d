//! Tokens that a command or a file gives (`users[].user.exec`, `tokenFile`), looked at before the library has them: it takes
//! for granted that a header can carry what a command prints, and ends the process where it cannot.

use std::{
    collections::BTreeMap,
    fs, io,
    process::{Command, ExitStatus, Stdio},
};

use axum::http::HeaderValue;
use k8s_openapi::ByteString;
use kube::config::{AuthInfo, ExecConfig, ExecInteractiveMode};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::json;

use crate::{
    printed_token::{Known, PrintedToken},
    token_file,
};

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// A token that no request can carry.
    #[error(
        "cannot use the token {0}: it has a line break or another control character; write it on one line, without a \
         blank line after it"
    )]
    Token(Place),
    /// The command cannot be run.
    #[error("cannot run {command:?}, which the kubeconfig names (users[].user.exec){hint}")]
    NoCommand {
        /// What is to be run.
        command: String,
        /// How to install it, as the kubeconfig says.
        hint: String,
        /// Why not.
        source: io::Error,
    },
    /// The command failed. What it had to say stands on standard error.
    #[error("{command:?}, which the kubeconfig names (users[].user.exec), failed: {status}{told}")]
    Failed {
        /// What was run.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// What it said, where nobody has seen it.
        told: String,
    },
    /// The command prints something else than credentials. What it is may be a secret.
    #[error(
        "{command:?}, which the kubeconfig names (users[].user.exec), prints no ExecCredential with a token, or with a \
         certificate and its key, and with a time of RFC 3339 if it expires"
    )]
    NotUnderstood {
        /// What was run.
        command: String,
    },
    /// The library knows a kind of credentials that kubectl has given up, and cannot be trusted with it.
    #[error(
        "the kubeconfig has a command in users[].user.auth-provider, as kubectl before 1.26 has read it: name it in \
         users[].user.exec"
    )]
    Provider,
}

/// Where a token stands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Place {
    /// In the kubeconfig itself.
    #[error("of the cluster configuration")]
    Configuration,
    /// In a file.
    #[error("in file {0:?}")]
    File(String),
    /// A command prints it.
    #[error("that {0:?} prints")]
    Command(String),
}

/// The keys of a legacy auth provider's settings that have tokens.
const PROVIDED: [&str; 2] = ["id-token", "access-token"];

impl CredentialError {
    pub(crate) fn not_understood(exec: &ExecConfig) -> Self {
        Self::NotUnderstood { command: exec.command.clone().unwrap_or_default() }
    }
}

/// What a command says (`client.authentication.k8s.io`, `ExecCredential`).
#[derive(Deserialize)]
struct ExecCredential {
    status: Option<Credentials>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Credentials {
    token: Option<String>,
    expiration_timestamp: Option<String>,
    client_certificate_data: Option<String>,
    client_key_data: Option<String>,
}

/// What comes of a command.
pub(crate) enum Printed {
    /// Whose name everything is asked in.
    Token(Known),
    /// Both in PEM.
    Certificate { certificate: String, key: SecretString },
}

/// The credentials, of which the library can use each token, and a token that the library is not to ask for. A command is run
/// here, once, and the library has nothing to do with it: it would run it again, and once more.
///
/// # Errors
/// When a token cannot be used, or there is none.
pub(crate) fn usable(auth: AuthInfo) -> Result<(AuthInfo, Option<PrintedToken>), CredentialError> {
    if let Some(provider) = &auth.auth_provider {
        let written = PROVIDED.iter().filter_map(|key| provider.config.get(*key));
        written.into_iter().try_for_each(|token| carried(token, || Place::Configuration))?;
        let runs = provider.config.contains_key("cmd-path");
        return if runs { Err(CredentialError::Provider) } else { Ok((auth, None)) };
    }
    if let Some(token) = &auth.token {
        carried(token.expose_secret(), || Place::Configuration)?;
    } else if let Some(file) = &auth.token_file {
        // One that cannot be read the library tells of.
        let text = fs::read_to_string(file).unwrap_or_default();
        carried(token_file::token(&text), || Place::File(file.clone()))?;
    } else if let Some(exec) = auth.exec.clone().filter(|_| auth.username.is_none()) {
        let auth = AuthInfo { exec: None, ..auth };
        return Ok(match printed(&exec)? {
            Printed::Token(token) => (auth, Some(PrintedToken::new(exec, token))),
            Printed::Certificate { certificate, key } => {
                (certified(auth, &certificate, &key), None)
            }
        });
    }
    Ok((auth, None))
}

/// Runs the command.
pub(crate) fn printed(exec: &ExecConfig) -> Result<Printed, CredentialError> {
    let command = exec.command.clone().unwrap_or_default();
    let output = run(exec, &command)?;
    let not_understood = || CredentialError::not_understood(exec);
    let said: ExecCredential = serde_saphyr::from_slice(&output).map_err(|_| not_understood())?;
    let said = said.status.ok_or_else(not_understood)?;
    if let Some(token) = &said.token {
        carried(token, || Place::Command(command.clone()))?;
    }
    if let (Some(certificate), Some(key)) = (said.client_certificate_data, said.client_key_data) {
        return Ok(Printed::Certificate { certificate, key: key.into() });
    }
    let token = said.token.ok_or_else(not_understood)?;
    let expires = said.expiration_timestamp.map(|it| it.parse()).transpose();
    let expires = expires.map_err(|_| not_understood())?;
    let header = token_file::bearer(&token).ok_or_else(not_understood)?;
    Ok(Printed::Token(Known { header, expires }))
}

/// With a certificate, as a kubeconfig has it: in Base64.
fn certified(auth: AuthInfo, certificate: &str, key: &SecretString) -> AuthInfo {
    let encoded =
        |text: &str| json!(ByteString(text.as_bytes().to_vec())).as_str().map(str::to_owned);
    AuthInfo {
        client_certificate_data: encoded(certificate),
        client_key_data: encoded(key.expose_secret()).map(SecretString::from),
        ..auth
    }
}

fn carried(token: &str, place: impl FnOnce() -> Place) -> Result<(), CredentialError> {
    let header = HeaderValue::from_str(token);
    header.map(drop).map_err(|_| CredentialError::Token(place()))
}

/// What the command prints; as the library runs it.
fn run(exec: &ExecConfig, name: &str) -> Result<Vec<u8>, CredentialError> {
    let mut command = Command::new(name);
    command.args(exec.args.iter().flatten());
    let set = exec.env.iter().flatten();
    command.envs(set.filter_map(|it| Some((it.get("name")?, it.get("value")?))));
    exec.drop_env.iter().flatten().for_each(|it| _ = command.env_remove(it));
    let interactive = exec.interactive_mode != Some(ExecInteractiveMode::Never);
    if interactive {
        command.stdin(Stdio::inherit()).stderr(Stdio::inherit());
    }
    command.env("KUBERNETES_EXEC_INFO", asked(exec, interactive));
    let output = command.output().map_err(|source| {
        let hint = exec.install_hint.as_ref().map(|it| format!(": {it}")).unwrap_or_default();
        CredentialError::NoCommand { command: name.to_owned(), hint, source }
    })?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let told = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    let told = if told.is_empty() { told } else { format!(": {told}") };
    Err(CredentialError::Failed { command: name.to_owned(), status: output.status, told })
}

/// What the command is told (`KUBERNETES_EXEC_INFO`).
fn asked(exec: &ExecConfig, interactive: bool) -> String {
    let mut spec = BTreeMap::from([("interactive", json!(interactive))]);
    if let Some(cluster) = exec.cluster.as_ref().filter(|_| exec.provide_cluster_info) {
        spec.insert("cluster", json!(cluster));
    }
    json!({ "apiVersion": exec.api_version, "kind": "ExecCredential", "spec": spec }).to_string()
}

#[cfg(test)]
mod tests {
    use std::env;

    use super::*;

    /// What becomes of the credentials with a command that prints this.
    fn of_command(script: &str) -> Result<(AuthInfo, Option<PrintedToken>), CredentialError> {
        let exec = json!({
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": "sh",
            "args": ["-c", script],
            "interactiveMode": "Never",
        });
        usable(serde_json::from_value(json!({ "exec": exec })).unwrap())
    }

    fn refusal<T>(result: Result<T, CredentialError>) -> String {
        let told = result.err().unwrap().to_string();
        assert!(!told.contains("topsecret"), "{told}");
        told
    }

    #[test]
    fn a_token_that_a_command_prints_is_one_that_a_header_can_carry() {
        let print = |status: &str| format!(r#"printf '%s' '{{"status": {status}}}'"#);
        let broken = [
            print(r#"{"token": "topsecret\n"}"#),
            print(r#"{"token": "top\r\nsecret"}"#),
            print(r#"{"token": "topsecret\n", "expirationTimestamp": "2030-01-01T00:00:00Z"}"#),
            "printf 'status:\\n  token: |\\n    topsecret\\n'".to_owned(),
        ];
        for script in broken {
            let told = refusal(of_command(&script));
            assert!(
                told.starts_with("cannot use the token that \"sh\" prints: it has a line break"),
                "{told}"
            );
        }
        for status in [
            r#"{"token": "topsecret"}"#,
            r#"{"token": "topsecret", "expirationTimestamp": "2030-01-01T00:00:00Z"}"#,
        ] {
            let (auth, token) = of_command(&print(status)).unwrap();
            assert!(auth.exec.is_none() && token.is_some(), "the library would run it: {status}");
        }
        let certificate = r#"{"clientCertificateData": "c", "clientKeyData": "k", "token": "t"}"#;
        let (auth, token) = of_command(&print(certificate)).unwrap();
        assert!(auth.exec.is_none() && token.is_none());
        assert_eq!(auth.client_certificate_data.as_deref(), Some("Yw=="));
        assert_eq!(auth.client_key_data.unwrap().expose_secret(), "aw==");
    }

    #[test]
    fn a_command_that_gives_no_credentials_is_named() {
        let table = [
            ("echo topsecret", "prints no ExecCredential with a token"),
            ("echo '{}'", "prints no ExecCredential with a token"),
            (
                r#"echo '{"status": {"clientKeyData": "topsecret"}}'"#,
                "prints no ExecCredential with a token",
            ),
            (
                r#"echo '{"status": {"token": "topsecret", "expirationTimestamp": "soon"}}'"#,
                "a time of RFC 3339",
            ),
            (
                "echo topsecret; echo log in first >&2; exit 3",
                "failed: exit status: 3: log in first",
            ),
        ];
        for (script, expected) in table {
            let told = refusal(of_command(script));
            assert!(told.contains(expected) && told.starts_with("\"sh\", which"), "{told}");
        }
        let exec = json!({ "command": "/no/such/command", "installHint": "Install it." });
        let told = refusal(usable(serde_json::from_value(json!({ "exec": exec })).unwrap()));
        assert!(
            told.starts_with("cannot run \"/no/such/command\"") && told.ends_with(": Install it."),
            "{told}"
        );
    }

    #[test]
    fn a_command_learns_what_it_is_asked_for() {
        let script = r#"case "$KUBERNETES_EXEC_INFO" in *'"interactive":false'*) echo '{"status": {"token": "t"}}' ;; esac"#;
        assert!(of_command(script).unwrap().1.is_some());
    }

    #[test]
    fn a_token_in_a_file_is_one_that_a_header_can_carry() {
        let file = env::temp_dir().join(format!("arpeggio-token-{}", std::process::id()));
        let auth =
            || AuthInfo { token_file: Some(file.display().to_string()), ..AuthInfo::default() };
        fs::write(&file, "top\nsecret\n").unwrap();
        let told = refusal(usable(auth()));
        assert!(told.contains("in file ") && told.contains("line break"), "{told}");
        for written in ["topsecret", "topsecret\n", " topsecret\r\n"] {
            fs::write(&file, written).unwrap();
            assert!(usable(auth()).is_ok(), "as `kubectl create token` writes it: {written:?}");
        }
        fs::remove_file(&file).unwrap();
        assert!(usable(auth()).is_ok(), "the library tells of that");
    }

    #[test]
    fn a_command_of_the_old_kind_is_refused_with_the_new_one() {
        let provider = json!({ "name": "gcp", "config": { "cmd-path": "gcloud" } });
        let auth = serde_json::from_value(json!({ "auth-provider": provider })).unwrap();
        let told = refusal(usable(auth));
        assert!(told.contains("users[].user.exec"), "{told}");
    }
}
