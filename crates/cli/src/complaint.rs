//! What is said of an error.

/// The whole chain of causes in one line. Of what the API server says only its own words, and nothing twice.
pub(crate) fn complaint(error: &anyhow::Error) -> String {
    let mut said: Vec<String> = Vec::new();
    for cause in error.chain() {
        let api = cause.downcast_ref::<kube::Error>().and_then(of_api);
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
        kube::Error::Api(status) if !status.message.is_empty() => Some(status.message.clone()),
        _ => None,
    }
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
    fn nothing_is_said_twice() {
        let error = anyhow::anyhow!("no such file").context("cannot read x: no such file");
        assert_eq!(complaint(&error.context("no")), "no: cannot read x: no such file");
    }
}
