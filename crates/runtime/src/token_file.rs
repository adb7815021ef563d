//! A token in a file, which whoever issues it replaces from time to time: the pod's ServiceAccount, or a kubeconfig's `tokenFile`.
//!
//! The library tells by the time of day when to look at the file again. A clock that is set back by some hours would have it go on
//! with a token that expires meanwhile, and no session could be renewed. So it is looked at here, by a clock that nobody sets.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::http::{HeaderValue, Request, header::AUTHORIZATION};
use kube::config::AuthInfo;

/// The file is looked at no more often. That is soon enough also after the machine has slept, when this clock stands still.
const PAUSE: Duration = Duration::from_secs(1);

/// The file and what it has said. Clones share both.
#[derive(Debug, Clone)]
pub(crate) struct TokenFile {
    path: PathBuf,
    known: Arc<Mutex<Known>>,
}

#[derive(Debug)]
struct Known {
    header: HeaderValue,
    read: Instant,
}

impl TokenFile {
    /// Takes over from the library where a file says in whose name everything is asked. One that cannot be read, or used, is left
    /// to the library, which tells of it.
    pub(crate) fn taken_from(auth: &mut AuthInfo) -> Option<Self> {
        let has_name = auth.username.is_some() && auth.password.is_some();
        let goes_before = auth.auth_provider.is_some() || has_name || auth.token.is_some();
        let path = PathBuf::from(auth.token_file.as_ref().filter(|_| !goes_before)?);
        let known = Known { header: read(&path)?, read: Instant::now() };
        (auth.token_file, auth.exec) = (None, None);
        Some(Self { path, known: Arc::new(Mutex::new(known)) })
    }

    /// The request in the name of whose token it is.
    pub(crate) fn signed<B>(&self, mut request: Request<B>) -> Request<B> {
        request.headers_mut().insert(AUTHORIZATION, self.header(Instant::now()));
        request
    }

    /// While there is nothing else in the file, or nothing that is of use, what was there last counts.
    fn header(&self, now: Instant) -> HeaderValue {
        // Whoever has it does nothing that could leave it half done.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_duration_since(known.read) >= PAUSE {
            known.read = now;
            known.header = read(&self.path).unwrap_or_else(|| known.header.clone());
        }
        known.header.clone()
    }
}

fn read(path: &Path) -> Option<HeaderValue> {
    bearer(Some(token(&fs::read_to_string(path).ok()?)).filter(|it| !it.is_empty())?)
}

/// The token that stands in a file. Whoever writes it there ends the line.
pub(crate) fn token(text: &str) -> &str {
    text.trim()
}

/// The header that carries a token, if one can.
pub(crate) fn bearer(token: &str) -> Option<HeaderValue> {
    let mut header = HeaderValue::try_from(format!("Bearer {token}")).ok()?;
    header.set_sensitive(true);
    Some(header)
}

#[cfg(test)]
mod tests {
    use std::env;

    use serde_json::json;

    use super::*;

    /// A file of this test's, and credentials that name it.
    fn file(name: &str, token: &str) -> (PathBuf, AuthInfo) {
        let path = env::temp_dir().join(format!("arpeggio-{name}-{}", std::process::id()));
        fs::write(&path, token).unwrap();
        let auth = AuthInfo { token_file: Some(path.display().to_string()), ..AuthInfo::default() };
        (path, auth)
    }

    #[test]
    fn a_new_token_counts_after_a_second_whatever_the_time_of_day() {
        let (path, mut auth) = file("new-token", "first");
        let file = TokenFile::taken_from(&mut auth).unwrap();
        assert!(auth.token_file.is_none(), "the library has nothing to do with it");
        let begin = Instant::now();
        let at = |millis| file.header(begin + Duration::from_millis(millis));
        for (millis, written, expected) in [
            (0, Some("second"), "Bearer first"),
            (1100, None, "Bearer second"),
            (1200, Some("third"), "Bearer second"),
            (2200, Some("top\nsecret"), "Bearer third"),
            (3300, Some("\n"), "Bearer third"),
            (4400, Some("fourth\n"), "Bearer third"),
            (5500, None, "Bearer fourth"),
        ] {
            assert_eq!(at(millis), expected, "{millis}");
            written.into_iter().for_each(|token| fs::write(&path, token).unwrap());
        }
        fs::remove_file(&path).unwrap();
        let signed = file.signed(Request::new(()));
        let header = &signed.headers()[AUTHORIZATION];
        assert!(header.is_sensitive() && header == "Bearer fourth");
    }

    #[test]
    fn what_goes_before_a_file_is_left_to_the_library() {
        let (path, auth) = file("goes-before", "token");
        let before = [
            json!({ "token": "other" }),
            json!({ "username": "me", "password": "secret" }),
            json!({ "auth-provider": { "name": "oidc", "config": {} } }),
        ];
        for other in before {
            let mut both: AuthInfo = serde_json::from_value(other.clone()).unwrap();
            both.token_file.clone_from(&auth.token_file);
            assert!(TokenFile::taken_from(&mut both).is_none(), "{other}");
            assert!(both.token_file.is_some(), "{other}");
        }
        fs::remove_file(&path).unwrap();
        assert!(TokenFile::taken_from(&mut auth.clone()).is_none(), "there is none");
    }
}
