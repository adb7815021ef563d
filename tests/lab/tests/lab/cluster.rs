//! The cluster of a lab is a real one, and its faults are real faults.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use arpeggio_lab::observe::{
    ArpWatch, Capture, Request, RequestLoop, RequestPlan, answers, get, longest_silence,
};
use arpeggio_lab::{Lab, Machine, Options, Result, web};
use nix::sys::signal::Signal;

use crate::Verdict;
use crate::traces::Traces;

const PATIENCE: Duration = Duration::from_mins(1);
const NODE_PORT: u16 = 30080;

/// A pod on every node, and a way in from outside.
const MORE: &str = "
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: everywhere}
spec:
  selector: {matchLabels: {app: everywhere}}
  template:
    metadata: {labels: {app: everywhere}}
    spec:
      hostNetwork: true
      containers:
      - {name: pause, image: lab.local/pause:lab, imagePullPolicy: Never}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: NodePort
  ipFamilyPolicy: RequireDualStack
  selector: {app: web}
  ports:
  - {port: 80, nodePort: 30080}
";

/// Starts a lab, runs the test, and keeps the evidence if it fails.
fn in_lab(name: &str, options: Options, test: impl FnOnce(&Lab) -> Result<()>) -> Verdict {
    let before = Traces::now();
    let lab = Lab::start(name.parse()?, options)?;
    if let Err(error) = test(&lab) {
        let _ = lab.collect();
        return Err(error.into());
    }
    lab.stop()?;
    before.none_since(&[name])
}

fn timed<T>(what: &str, act: impl FnOnce() -> Result<T>) -> Result<T> {
    let started = Instant::now();
    let outcome = act();
    eprintln!("  {what}: {:.2} s", started.elapsed().as_secs_f32());
    outcome
}

fn start_web(lab: &Lab, replicas: u32) -> Result<()> {
    timed("nginx image built and imported", || lab.import(&[web::nginx_image()?]))?;
    timed("deployment and daemon set rolled out", || {
        lab.apply(&web::manifest(replicas))?;
        lab.apply(MORE)?;
        lab.wait_for_rollout("default", "deployment/web", PATIENCE)?;
        lab.wait_for_rollout("default", "daemonset/everywhere", PATIENCE)
    })
}

/// Fetches the page from a machine.
fn fetch(lab: &Lab, from: Machine, server: (impl Into<IpAddr>, u16)) -> Result<Request> {
    let plan = RequestPlan::new(SocketAddr::new(server.0.into(), server.1));
    lab.namespace(from).enter(|| get(&plan))
}

pub(crate) fn power() -> Verdict {
    in_lab("it-power", Options::default(), |lab| {
        start_web(lab, 6)?;
        the_page_is_seen_from_everywhere(lab)?;
        a_power_cut_is_sudden_and_complete(lab)?;
        a_machine_returns_with_its_pods(lab)
    })
}

fn the_page_is_seen_from_everywhere(lab: &Lab) -> Result<()> {
    let node = Machine::Node(1);
    let (v4, v6) = (node.lan_v4().unwrap(), node.lan_v6().unwrap());
    lab.network().forward_port(80, SocketAddr::from((v4, NODE_PORT)))?;
    let router: IpAddr = "203.0.113.1".parse().unwrap();
    // kube-proxy learns of a ready pod a moment after the rollout is done.
    for (machine, server, port) in [
        (Machine::Client, IpAddr::from(v4), NODE_PORT),
        (Machine::Client, IpAddr::from(v6), NODE_PORT),
        (Machine::Internet, router, 80),
    ] {
        wait_for_page(lab, machine, (server, port))?;
    }
    let logs = lab.kubectl(&["logs", "deployment/web"])?;
    assert!(!logs.contains("Error from server"), "{logs}");
    Ok(())
}

fn a_power_cut_is_sudden_and_complete(lab: &Lab) -> Result<()> {
    let victim = Machine::Node(2);
    let address = victim.lan_v4().unwrap();
    let watch = ArpWatch::start(lab, Machine::Client, address, Duration::from_millis(5))?;
    let capture = Capture::start(lab, Machine::Client, "arp")?;
    std::thread::sleep(Duration::from_millis(500));
    let cut = timed("power cut", || lab.power_off(victim))?;
    std::thread::sleep(Duration::from_millis(500));
    let seen = watch.stop()?;
    let size = std::fs::metadata(capture.stop()?).map_or(0, |file| file.len());
    let last = seen.replies.last().expect("the node answered before");
    eprintln!(
        "  last ARP answer {:?} after the cut, {} in all",
        last.at.saturating_duration_since(cut),
        seen.replies.len()
    );
    assert!(last.at < cut + Duration::from_millis(100), "no answer after the cut");
    assert_eq!(last.mac, victim.mac().unwrap());
    assert!(seen.replies.len() > 50 && size > 1000, "{size} bytes captured");
    assert!(!fetch(lab, Machine::Client, (address, NODE_PORT))?.is_answered());
    Ok(())
}

fn a_machine_returns_with_its_pods(lab: &Lab) -> Result<()> {
    let node = Machine::Node(2);
    timed("power on", || lab.power_on(node))?;
    timed("node Ready again", || lab.wait_for_boot(node, PATIENCE))?;
    timed("pods run again", || {
        lab.wait_for_rollout("default", "daemonset/everywhere", PATIENCE)?;
        lab.wait_for_rollout("default", "deployment/web", PATIENCE)
    })?;
    let address = IpAddr::from(node.lan_v4().unwrap());
    timed("its node port answers", || wait_for_page(lab, Machine::Client, (address, NODE_PORT)))
}

fn wait_for_page(lab: &Lab, from: Machine, server: (IpAddr, u16)) -> Result<()> {
    lab.wait_until(&format!("the page at {server:?}"), PATIENCE, || {
        let page = fetch(lab, from, server).map_err(|error| error.to_string())?;
        if page.is_answered() { Ok(()) } else { Err(format!("{:?}", page.outcome)) }
    })
}

pub(crate) fn faults() -> Verdict {
    in_lab("it-faults", Options { nodes: 2, ..Options::default() }, |lab| {
        start_web(lab, 2)?;
        a_cable_can_be_out_and_in(lab)?;
        the_api_can_be_away(lab)?;
        a_container_can_be_stopped_and_continued(lab)?;
        a_machine_can_stand_still_and_go_on(lab)?;
        lab.collect().map(drop)
    })
}

fn a_cable_can_be_out_and_in(lab: &Lab) -> Result<()> {
    let node = Machine::Node(2);
    let server = SocketAddr::from((node.lan_v4().unwrap(), NODE_PORT));
    let begin = Instant::now();
    let page = RequestLoop::start(&lab.namespace(Machine::Client), RequestPlan::new(server))?;
    std::thread::sleep(Duration::from_millis(500));
    lab.network().cable_out(node)?;
    std::thread::sleep(Duration::from_secs(1));
    lab.network().cable_in(node)?;
    std::thread::sleep(Duration::from_millis(1500));
    let requests = page.stop()?;
    let outage = longest_silence(answers(&requests), begin, Instant::now()).length();
    eprintln!("  cable out for 1 s: no answer for {outage:?}, {} requests", requests.len());
    assert!(outage >= Duration::from_secs(1) && outage < Duration::from_secs(2), "{outage:?}");
    Ok(())
}

fn the_api_can_be_away(lab: &Lab) -> Result<()> {
    let server = SocketAddr::from((Machine::Control.lan_v4().unwrap(), 6443));
    let reach = |machine| {
        let connect = || TcpStream::connect_timeout(&server, Duration::from_millis(500));
        lab.namespace(machine).enter(connect).map(|connected| connected.is_ok())
    };
    let (cut, other) = (Machine::Node(1), Machine::Node(2));
    lab.cut_off_api(cut)?;
    assert!(!reach(cut)? && reach(other)?, "only one is cut off");
    lab.heal_api(cut)?;
    assert!(reach(cut)?);
    lab.stop_api()?;
    assert!(!reach(other)?);
    timed("API server started again", || lab.start_api(PATIENCE))
}

fn a_container_can_be_stopped_and_continued(lab: &Lab) -> Result<()> {
    let pods = lab.get(&["pods", "-l", "app=web"])?;
    let pod = &pods["items"][0];
    let name = pod["metadata"]["name"].as_str().unwrap();
    let address: IpAddr = pod["status"]["podIP"].as_str().unwrap().parse().unwrap();
    let processes = lab.container("default", name, "nginx")?;
    let signal = |signal| processes.iter().try_for_each(|process| process.signal(signal));
    signal(Signal::SIGSTOP)?;
    assert!(!fetch(lab, Machine::Client, (address, 80))?.is_answered());
    signal(Signal::SIGCONT)?;
    assert!(fetch(lab, Machine::Client, (address, 80))?.is_answered());
    Ok(())
}

fn a_machine_can_stand_still_and_go_on(lab: &Lab) -> Result<()> {
    let node = Machine::Node(2);
    let server = (node.lan_v4().unwrap(), NODE_PORT);
    lab.pause(node)?;
    assert!(!fetch(lab, Machine::Client, server)?.is_answered());
    let link = lab.namespace(node).run("ip", &["link", "show", "eth0"])?;
    assert!(link.contains("LOWER_UP"), "it has its carrier: {link}");
    lab.resume(node)?;
    timed("the paused machine answers again", || {
        wait_for_page(lab, Machine::Client, (server.0.into(), server.1))
    })
}

pub(crate) fn control_on_node() -> Verdict {
    let options = Options { nodes: 2, control_on_node: true, ..Options::default() };
    in_lab("it-single", options, |lab| {
        lab.power_off(Machine::Node(1))?;
        assert!(lab.kubectl(&["get", "--raw", "/readyz", "--request-timeout=1s"]).is_err());
        timed("control plane's node on", || lab.power_on(Machine::Node(1)))?;
        timed("API ready again", || lab.wait_for_api(PATIENCE))?;
        timed("node Ready again", || lab.wait_for_boot(Machine::Node(1), PATIENCE))
    })
}
