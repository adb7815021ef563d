//! Being told to stop.

use std::sync::Arc;

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

/// Tells every clone once that the process has been asked to stop (SIGTERM or SIGINT), or asks it by itself.
#[derive(Debug, Clone)]
pub struct Shutdown {
    asked: watch::Receiver<bool>,
    tell: Arc<watch::Sender<bool>>,
}

impl Shutdown {
    /// Listens for SIGTERM and SIGINT from now on.
    ///
    /// # Errors
    /// When the signal handlers cannot be installed.
    pub fn on_signal() -> std::io::Result<Self> {
        let (tell, asked) = watch::channel(false);
        let tell = Arc::new(tell);
        let shutdown = Self { asked, tell: Arc::clone(&tell) };
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::spawn(async move {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            tracing::info!(signal = name, "asked to stop");
            tell.send_replace(true);
        });
        Ok(shutdown)
    }

    /// Asks this process to stop, as a signal does. Whoever runs it starts it again.
    pub fn ask(&self) {
        self.tell.send_replace(true);
    }

    /// Returns when the process has been asked to stop.
    pub async fn asked(&self) {
        // An error means that the listener is gone, which happens only when the runtime ends.
        let _ = self.asked.clone().wait_for(|asked| *asked).await;
    }
}
