//! The flags that every command takes, named as kubectl names them.

use std::path::PathBuf;

use arpeggio_runtime::client::{self, ConnectError, KubeconfigChoice, Patience};
use clap::ColorChoice;
use kube::Client;

/// Which cluster, where in it, and in which colours.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Options of every command")]
pub(crate) struct Global {
    /// The namespace of the Service that a command is about. Default: that of the kubeconfig's context.
    #[arg(short, long, global = true, value_name = "NAME")]
    namespace: Option<String>,
    /// The namespace that Arpeggio is installed in. Default: POD_NAMESPACE, as in Arpeggio's pods, or arpeggio-system.
    #[allow(clippy::doc_markdown, reason = "it is shown on a terminal")]
    #[arg(long, global = true, env = "ARPEGGIO_NAMESPACE", value_name = "NAME")]
    system_namespace: Option<String>,
    /// The context of the kubeconfig. Default: its current one.
    #[arg(long, global = true, value_name = "NAME")]
    context: Option<String>,
    /// The kubeconfig. Default: KUBECONFIG, ~/.kube/config, or the pod's ServiceAccount.
    #[arg(long, global = true, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    kubeconfig: Option<PathBuf>,
    /// When to use colours. With auto: on a terminal, unless NO_COLOR is set.
    #[allow(clippy::doc_markdown, reason = "it is shown on a terminal")]
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN")]
    color: ColorChoice,
}

impl Global {
    /// Arpeggio's own namespace.
    pub(crate) fn system_namespace(&self) -> String {
        let of_pod = || std::env::var("POD_NAMESPACE").ok();
        let given = self.system_namespace.clone().or_else(of_pod).filter(|name| !name.is_empty());
        given.unwrap_or_else(|| "arpeggio-system".to_owned())
    }

    /// The namespace that names without one are in.
    pub(crate) fn service_namespace(&self, client: &Client) -> String {
        self.namespace().unwrap_or_else(|| client.default_namespace()).to_owned()
    }

    /// The one that was given. Empty means the same as absent, as with kubectl: a script's variable may not be set.
    pub(crate) fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref().filter(|name| !name.is_empty())
    }

    /// A client for as long as the command runs.
    pub(crate) async fn connect(&self) -> Result<Client, ConnectError> {
        self.connect_with(Patience::default()).await
    }

    /// A client with patience of the caller's choice.
    pub(crate) async fn connect_with(&self, patience: Patience) -> Result<Client, ConnectError> {
        let choice =
            KubeconfigChoice { kubeconfig: self.kubeconfig.clone(), context: self.context.clone() };
        client::connect_to(&choice, patience).await
    }

    /// From here on, what is printed with colours loses them where they are not wanted.
    pub(crate) fn choose_colours(&self) {
        let choice = match self.color {
            ColorChoice::Auto => anstream::ColorChoice::Auto,
            ColorChoice::Always => anstream::ColorChoice::Always,
            ColorChoice::Never => anstream::ColorChoice::Never,
        };
        choice.write_global();
    }
}
