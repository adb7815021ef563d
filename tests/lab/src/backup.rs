//! A backup of etcd, and what it is for.

use std::path::PathBuf;
use std::time::Duration;

use crate::components::ETCD_DATA;
use crate::error::Result;
use crate::lab::Lab;
use crate::namespace::run_on_host;

const ETCD: &str = "etcd";

impl Lab {
    /// Copies all that the cluster knows. The API server is away meanwhile.
    ///
    /// # Errors
    /// When it cannot be stopped, copied or started again in time.
    pub fn back_up_etcd(&self, patience: Duration) -> Result<()> {
        self.without_etcd(patience, || {
            let (data, backup) = self.etcd_folders();
            run_on_host("cp", &["-a", &data, &backup]).map(drop)
        })
    }

    /// Puts the cluster back to what it knew at [`Self::back_up_etcd`]: also its versions start again from there.
    ///
    /// # Errors
    /// When there is no backup, or it cannot be put back in time.
    pub fn restore_etcd(&self, patience: Duration) -> Result<()> {
        self.without_etcd(patience, || {
            let (data, backup) = self.etcd_folders();
            run_on_host("rm", &["-r", &data])?;
            run_on_host("cp", &["-a", &backup, &data]).map(drop)
        })
    }

    fn without_etcd(&self, patience: Duration, act: impl FnOnce() -> Result<()>) -> Result<()> {
        let control = self.options().control_machine();
        self.stop_api()?;
        self.stop_component(control, ETCD)?;
        act()?;
        self.start_component(control, ETCD)?;
        self.start_api(patience)
    }

    fn etcd_folders(&self) -> (String, String) {
        let data: PathBuf = self.computer(self.options().control_machine()).on_host(ETCD_DATA);
        let backup = data.with_extension("backup");
        (data.to_string_lossy().into_owned(), backup.to_string_lossy().into_owned())
    }
}
