//! The chart, by the real Helm: installed with pools as it was at an earlier commit, upgraded, rolled back, removed, and installed
//! anew. Where a page says what to type, that is typed.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use arpeggio_lab::{Machine, web};
use arpeggio_scenarios::{
    Home, POOL_RANGE, Typist, chart_folder, first_address, helm_program, import_as, service,
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
    let typist = Typist::new(home)?;
    let says = typist.blocks("manifests/chart/README.md", "helm")?;
    let [install, upgrade, definitions, remove] = &says[..] else { bail!("the chart's README") };
    let says = typist.blocks("docs/install.md", "helm")?;
    let [install_by_file] = &says[..] else { bail!("docs/install.md") };

    // Today's images come when the page says so.
    home.lab.import(&[web::nginx_image()?])?;
    import_as(&home.lab, PREVIOUS)?;
    let helm = Helm::of(home, &typist)?;
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
    let takes_the_definition = || {
        helm.wants_the_definition()?;
        typist.types(definitions).map(drop)
    };
    if definition(&previous)? != definition(&chart)? {
        takes_the_definition()?;
    }
    let upgraded = home.look_on("the chart is upgraded", AFTER, || {
        typist.types(upgrade)?;
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
    // Helm does not change what stands in crds/: whoever upgrades has to, and is told how.
    let older = "arpeggio.dev/definition=older";
    home.lab.kubectl(&["annotate", "--overwrite", DEFINITION, older])?;
    takes_the_definition()?;
    helm.upgrade(&chart)?;

    it_goes_and_leaves_the_definition(home, &helm, || typist.types(remove))?;
    for install in [install, install_by_file] {
        it_serves(home, || typist.types(install))?;
        typist.types(remove)?;
    }
    Ok(())
}

/// Installed as a page says it, it gives the Service the address that its pool begins with.
fn it_serves(home: &Home, install: impl FnOnce() -> anyhow::Result<String>) -> anyhow::Result<()> {
    install()?;
    wait_for_pods(&home.lab, NAMESPACE)?;
    let address = home.wait_for_address("web")?;
    ensure!(address == first_address(), "{address} is not of the page's pool");
    home.wait_for_owner(first_address())?;
    home.wait_for_page_at(Machine::Client, SocketAddr::new(address, 80))
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

fn it_goes_and_leaves_the_definition(
    home: &Home,
    helm: &Helm<'_>,
    remove: impl FnOnce() -> anyhow::Result<String>,
) -> anyhow::Result<()> {
    let said = remove()?;
    ensure!(said.contains("helm uninstall arpeggio --namespace arpeggio-system"), "{said}");
    home.wait_until("all pods are gone", || {
        let left = helm.images()?;
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}").into()) }
    })?;
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
    fn of(home: &'a Home, typist: &Typist<'_>) -> anyhow::Result<Self> {
        let folder = home.lab.folders().kubeconfig().with_file_name("helm");
        fs::create_dir_all(&folder)?;
        let helm = Self { home, program: helm_program("helm")?, folder };
        let pool = json!({ "name": "home", "spec": { "addresses": [POOL_RANGE] } });
        let values = json!({ "pools": [pool], "admission": true }).to_string();
        fs::write(helm.values(), &values)?;
        typist.writes("values.yaml", &values)?;
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

    /// It refuses to upgrade, and says what to do.
    fn wants_the_definition(&self) -> anyhow::Result<()> {
        let refusal = self.upgrade(&chart_folder()).err().context("it was upgraded")?.to_string();
        ensure!(refusal.contains("helm show crds"), "{refusal}");
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
