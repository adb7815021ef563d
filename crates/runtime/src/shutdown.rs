//! Being told to stop.

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

/// Tells every clone once that the process has been asked to stop (SIGTERM or SIGINT).
#[derive(Debug, Clone)]
pub struct Shutdown {
    asked: watch::Receiver<bool>,
}

impl Shutdown {
    /// Listens for SIGTERM and SIGINT from now on.
    ///
    /// # Errors
    /// When the signal handlers cannot be installed.
    pub fn on_signal() -> std::io::Result<Self> {
        let (tell, asked) = watch::channel(false);
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::spawn(async move {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            tracing::info!(signal = name, "asked to stop");
            // Fails only when nobody listens any more.
            let _ = tell.send(true);
        });
        Ok(Self { asked })
    }

    /// Returns when the process has been asked to stop.
    pub async fn asked(&self) {
        // An error means that the listener is gone, which happens only when the runtime ends.
        let _ = self.asked.clone().wait_for(|asked| *asked).await;
    }
}
