//! The chart, by the real Helm: installed with pools as it was at an earlier commit, upgraded, rolled back, removed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use arpeggio_lab::Machine;
use arpeggio_scenarios::{
    Home, POOL_RANGE, chart_folder, first_address, helm_program, import_all, import_as, service,
    wait_for_pods,
};
use serde_json::json;

const NAMESPACE: &str = "arpeggio-system";
const RELEASE: [&str; 3] = ["arpeggio", "--namespace", NAMESPACE];
const DEFINITION: &str = "crd/addresspools.arpeggio.dev";

/// The version of the earlier chart that is upgraded from. The programs are today's: what those of two releases make of each other is
/// shown by `two-versions`.
const PREVIOUS: &str = "0.1.0";

/// After the last step, for what comes late.
const AFTER: Duration = Duration::from_secs(2);

pub(crate) fn the_chart_installs_upgrades_and_goes(home: &Home) -> anyhow::Result<()> {
    import_all(&home.lab)?;
    import_as(&home.lab, PREVIOUS)?;
    let helm = Helm::of(home)?;
    let previous = earlier_chart()?;
    helm.install(&previous)?;
    wait_for_pods(&home.lab, NAMESPACE)?;
    let is_previous = |image: &String| image.ends_with(&format!(":{PREVIOUS}"));
    ensure!(helm.images()?.iter().all(is_previous), "the previous version");
    home.start_web(2)?;
    home.apply(&service("web", "arpeggio.dev/address-pool", "home"))?;
    home.wait_for_address("web")?;
    home.wait_for_owner(first_address())?;
    for node in home.lab.options().node_machines() {
        home.wait_for_page(node)?;
    }

    let chart = chart_folder();
    if definition(&previous)? != definition(&chart)? {
        helm.takes_the_definition()?;
    }
    let upgraded = home.look_on("the chart is upgraded", AFTER, || {
        helm.upgrade(&chart)?;
        wait_for_pods(&home.lab, NAMESPACE)
    })?;
    upgraded.without_a_gap()?;
    let version = concat!(":", env!("CARGO_PKG_VERSION"));
    ensure!(helm.images()?.iter().all(|it| it.ends_with(version)), "{:?}", helm.images());
    let returned = home.look_on("the upgrade is rolled back", AFTER, || {
        helm.run("rollback", &["1", "--wait", "--timeout=90s"])?;
        wait_for_pods(&home.lab, NAMESPACE)
    })?;
    returned.without_a_gap()?;
    ensure!(helm.images()?.iter().all(is_previous), "the previous version");
    another_definition_is_told_of(home, &helm)?;
    it_goes_and_leaves_the_definition(home, &helm)
}

/// Helm does not change what stands in crds/: whoever upgrades has to, and is told how.
fn another_definition_is_told_of(home: &Home, helm: &Helm<'_>) -> anyhow::Result<()> {
    let older = "arpeggio.dev/definition=older";
    home.lab.kubectl(&["annotate", "--overwrite", DEFINITION, older])?;
    helm.takes_the_definition()?;
    helm.upgrade(&chart_folder())
}

/// The chart of an earlier commit, as it was.
fn earlier_chart() -> anyhow::Result<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../earlier.sh");
    let output = Command::new(&script).arg("chart").stderr(Stdio::inherit()).output();
    let output = output.with_context(|| format!("cannot run {}", script.display()))?;
    ensure!(output.status.success(), "{} failed, see above", script.display());
    Ok(PathBuf::from(String::from_utf8(output.stdout)?.trim()))
}

/// The definition that a chart brings.
fn definition(chart: &Path) -> anyhow::Result<String> {
    let path = chart.join("crds/addresspools.yaml");
    fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}

fn it_goes_and_leaves_the_definition(home: &Home, helm: &Helm<'_>) -> anyhow::Result<()> {
    let said = home.arpeggio(&["uninstall"])?;
    ensure!(said.contains("helm uninstall arpeggio --namespace arpeggio-system"), "{said}");
    helm.run("uninstall", &["--wait", "--timeout=60s"])?;
    ensure!(home.addresses("web")?.is_empty(), "the Service keeps its address");
    let pools = home.lab.get(&["addresspools"])?;
    ensure!(pools["items"].as_array().is_some_and(Vec::is_empty), "pools of values go: {pools}");
    home.lab.get(&[DEFINITION])?;
    for kinds in ["clusterroles,clusterrolebindings,flowschemas", "deployments,daemonsets"] {
        let left =
            home.lab.get(&[kinds, "-n", NAMESPACE, "-lapp.kubernetes.io/part-of=arpeggio"])?;
        ensure!(left["items"].as_array().is_some_and(Vec::is_empty), "{left}");
    }
    Ok(())
}

struct Helm<'a> {
    home: &'a Home,
    program: PathBuf,
    /// For its own files, and ours.
    folder: PathBuf,
}

impl<'a> Helm<'a> {
    fn of(home: &'a Home) -> anyhow::Result<Self> {
        let folder = home.lab.folders().kubeconfig().with_file_name("helm");
        fs::create_dir_all(&folder)?;
        let helm = Self { home, program: helm_program("helm")?, folder };
        let pool = json!({ "name": "home", "spec": { "addresses": [POOL_RANGE] } });
        fs::write(helm.values(), json!({ "pools": [pool], "admission": true }).to_string())?;
        Ok(helm)
    }

    fn values(&self) -> PathBuf {
        self.folder.join("values.json")
    }

    fn output(&self, args: &[&str]) -> anyhow::Result<String> {
        let mut helm = Command::new(&self.program);
        helm.args(args).env("KUBECONFIG", self.home.lab.folders().kubeconfig());
        for (variable, folder) in [
            ("HELM_CACHE_HOME", "cache"),
            ("HELM_CONFIG_HOME", "config"),
            ("HELM_DATA_HOME", "data"),
        ] {
            helm.env(variable, self.folder.join(folder));
        }
        let output = self.home.lab.namespace(Machine::Client).output(&mut helm)?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "helm {args:?}: {errors}");
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn run(&self, command: &str, args: &[&str]) -> anyhow::Result<String> {
        self.output(&[&[command], &RELEASE[..], args].concat())
    }

    /// It refuses to upgrade, says what to do, and that is done.
    fn takes_the_definition(&self) -> anyhow::Result<()> {
        let chart = chart_folder();
        let refusal = self.upgrade(&chart).err().context("it was upgraded")?.to_string();
        ensure!(refusal.contains("helm show crds"), "{refusal}");
        let definition = self.output(&["show", "crds", &chart.to_string_lossy()])?;
        let apply = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
        self.home.lab.kubectl_with_input(&apply, &definition).map(drop)?;
        Ok(())
    }

    fn install(&self, chart: &Path) -> anyhow::Result<()> {
        let (chart, values) = (chart.to_string_lossy(), self.values());
        let values = values.to_string_lossy();
        let how = ["--values", &values, "--create-namespace", "--wait", "--timeout=90s"];
        self.run("install", &[&[&*chart], &how[..]].concat()).map(drop)
    }

    fn upgrade(&self, chart: &Path) -> anyhow::Result<()> {
        let (chart, values) = (chart.to_string_lossy(), self.values());
        let values = values.to_string_lossy();
        self.run("upgrade", &[&chart, "--values", &values, "--wait", "--timeout=90s"]).map(drop)
    }

    /// Of all pods that run.
    fn images(&self) -> anyhow::Result<Vec<String>> {
        let pods = self.home.lab.get(&["pods", "-n", NAMESPACE])?;
        let pods = pods["items"].as_array().context("no list")?;
        let run = pods.iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
        let image = |pod: &serde_json::Value| {
            pod["spec"]["containers"][0]["image"].as_str().map(str::to_owned)
        };
        Ok(run.filter_map(image).collect())
    }
}
