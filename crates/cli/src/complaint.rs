//! What is said of an error.

use std::error::Error;

use anyhow::Chain;
use kube::core::Status;

/// The whole chain of causes in one line. Of what the API server says only its own words, and nothing twice.
pub(crate) fn complaint(error: &anyhow::Error) -> String {
    chained(error.chain())
}

/// The same of a request that brought nothing.
pub(crate) fn words(error: &kube::Error) -> String {
    chained(Chain::new(error))
}

fn chained<'a>(causes: impl Iterator<Item = &'a (dyn Error + 'static)>) -> String {
    let mut said: Vec<String> = Vec::new();
    for cause in causes {
        let kube = cause.downcast_ref::<kube::Error>();
        // It says no more than its cause does.
        if matches!(kube, Some(kube::Error::Service(_))) {
            continue;
        }
        let api = kube.and_then(of_api);
        let is_last = api.is_some();
        let words = api.unwrap_or_else(|| cause.to_string());
        if !said.last().is_some_and(|before| before.ends_with(&words)) {
            said.push(words);
        }
        if is_last {
            break;
        }
    }
    said.join(": ")
}

fn of_api(error: &kube::Error) -> Option<String> {
    match error {
        kube::Error::Api(status) => Some(answered(status)),
        _ => None,
    }
}

/// The API server's own words, if it has any.
fn answered(Status { code, reason, message, .. }: &Status) -> String {
    if message.is_empty() {
        return format!("the API server answers {code} {reason}").trim_end().to_owned();
    }
    message.clone()
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;
    use kube::core::Status;

    use super::*;

    fn refused(message: &str) -> anyhow::Error {
        let status = Status::failure(message, "NotFound").with_code(404);
        kube::Error::Api(Box::new(status)).into()
    }

    #[test]
    fn of_the_api_server_its_own_words_are_said() {
        let not_found: anyhow::Result<()> = Err(refused("services \"web\" not found"));
        let error = not_found.context("cannot read Service shop/web").unwrap_err();
        let expected = "cannot read Service shop/web: services \"web\" not found";
        assert_eq!(complaint(&error), expected);
        assert!(complaint(&refused("")).contains("404"), "{}", complaint(&refused("")));
    }

    #[test]
    fn why_the_api_server_cannot_be_reached_is_said_without_names_of_types() {
        let inner = std::io::Error::other("invalid peer certificate: UnknownIssuer");
        let error = anyhow::Error::from(inner).context("client error (Connect)");
        let error = kube::Error::Service(error.into());
        let expected = "client error (Connect): invalid peer certificate: UnknownIssuer";
        assert_eq!(words(&error), expected);
        assert_eq!(complaint(&error.into()), expected);
        let status = Status::failure("Unauthorized", "Unauthorized").with_code(401);
        assert_eq!(words(&kube::Error::Api(status.boxed())), "Unauthorized");
        let silent = Status::failure("", "").with_code(502);
        assert_eq!(words(&kube::Error::Api(silent.boxed())), "the API server answers 502");
    }

    #[test]
    fn nothing_is_said_twice() {
        let error = anyhow::anyhow!("no such file").context("cannot read x: no such file");
        assert_eq!(complaint(&error.context("no")), "no: cannot read x: no such file");
    }
}
