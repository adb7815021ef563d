//! How people name a Service.

use anyhow::bail;
use kube::Client;

use crate::global::Global;

/// A Service's name, and its namespace where that is written before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServiceName {
    namespace: Option<String>,
    pub(crate) name: String,
}

impl std::str::FromStr for ServiceName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (namespace, name) = match text.split_once('/') {
            Some((namespace, name)) => (Some(namespace), name),
            None => (None, text),
        };
        if namespace == Some("") || name.is_empty() || name.contains('/') {
            return Err("write NAME or NAMESPACE/NAME".to_owned());
        }
        Ok(Self { namespace: namespace.map(str::to_owned), name: name.to_owned() })
    }
}

impl ServiceName {
    /// The Service's namespace: what stands before the name, -n, or that of the kubeconfig's context.
    pub(crate) fn home(&self, global: &Global, client: &Client) -> anyhow::Result<String> {
        let given = self.given(global.namespace())?;
        Ok(given.map_or_else(|| global.service_namespace(client), str::to_owned))
    }

    fn given<'a>(&'a self, flag: Option<&'a str>) -> anyhow::Result<Option<&'a str>> {
        match (self.namespace.as_deref(), flag) {
            (Some(one), Some(other)) if one != other => bail!(
                "the Service is in namespace {one} or {other}? Give either -n or NAMESPACE/NAME"
            ),
            (one, other) => Ok(one.or(other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_named_with_or_without_its_namespace() {
        let named = |text: &str| text.parse::<ServiceName>().map(|it| (it.namespace, it.name));
        assert_eq!(named("web"), Ok((None, "web".to_owned())));
        assert_eq!(named("shop/web"), Ok((Some("shop".to_owned()), "web".to_owned())));
        for wrong in ["", "/", "a/", "/b", "a/b/c"] {
            assert!(named(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn the_namespace_is_given_once() {
        let named = |text: &str| text.parse::<ServiceName>().unwrap();
        assert_eq!(named("web").given(None).unwrap(), None);
        assert_eq!(named("web").given(Some("shop")).unwrap(), Some("shop"));
        assert_eq!(named("a/web").given(None).unwrap(), Some("a"));
        assert_eq!(named("a/web").given(Some("a")).unwrap(), Some("a"));
        assert!(named("a/web").given(Some("b")).is_err(), "two namespaces");
    }
}
