//! The programs of a machine and their settings. Pure: options in, files and arguments out.
//!
//! Paths are those that the machine sees: `/run` is lost with its power, `/var/lib` and `/var/log`
//! are its disk.

use std::time::Duration;

use serde_json::{Value, json};

use crate::cgroup;
use crate::plan::{Families, LabName, Machine};
use crate::programs::{API_SERVER, CNI_PLUGINS};

/// Where a machine finds the lab's programs.
pub(crate) const BIN: &str = "/var/lib/lab/bin";
/// Where a machine finds its settings and keys.
pub(crate) const ETC: &str = "/var/lib/lab/etc";
/// Where etcd keeps what the cluster knows.
pub(crate) const ETCD_DATA: &str = "/var/lib/etcd";
/// containerd's socket.
pub(crate) const CONTAINERD_SOCKET: &str = "/run/containerd/containerd.sock";
/// What every pod's first container runs.
pub(crate) const PAUSE_IMAGE: &str = "lab.local/pause:lab";

/// How kube-proxy translates Service addresses.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    serde::Serialize,
    serde::Deserialize,
    clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum ProxyMode {
    /// The nftables mode.
    #[default]
    Nftables,
    /// The iptables mode, still the most common one.
    Iptables,
}

/// A long-lived program of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Component {
    /// Also the name of its log.
    pub name: &'static str,
    /// The program and its arguments.
    pub command: Vec<String>,
}

impl Component {
    /// One that is in the `cluster` program.
    fn of_cluster(name: &'static str, flags: &[String]) -> Self {
        let mut command = vec![format!("{BIN}/cluster"), name.to_owned()];
        command.extend_from_slice(flags);
        Self { name, command }
    }

    /// One that is a program of its own.
    fn alone(name: &'static str, flags: &[String]) -> Self {
        let mut command = vec![format!("{BIN}/{name}")];
        command.extend_from_slice(flags);
        Self { name, command }
    }

    /// Whether a process with these words is this component.
    pub(crate) fn is(name: &str, words: &[String]) -> bool {
        let is_program = |word: &String| word.rsplit('/').next() == Some(name);
        match words {
            [program, component, ..] if program.ends_with("/cluster") => component == name,
            [program, ..] => is_program(program),
            [] => false,
        }
    }
}

/// Builds `--name=value` lists, with `ETC` put in place of `@`.
fn flags(list: &[(&str, &str)]) -> Vec<String> {
    list.iter().map(|(name, value)| format!("--{name}={}", value.replace('@', ETC))).collect()
}

/// The parts of the control plane, in the order in which they need one another.
pub(crate) fn control_plane(
    machine: Machine,
    families: Families,
    node_monitor_grace: Duration,
) -> Vec<Component> {
    vec![
        etcd(),
        Component::of_cluster(API_SERVER, &apiserver_flags(machine, families)),
        Component::of_cluster(
            "kube-controller-manager",
            &controller_manager_flags(families, node_monitor_grace),
        ),
        Component::of_cluster(
            "kube-scheduler",
            &flags(&[("kubeconfig", "@/scheduler.kubeconfig"), ("leader-elect", "false")]),
        ),
    ]
}

/// What answers for the oldest Kubernetes: nothing but its API server, and etcd.
pub(crate) fn oldest_control_plane(machine: Machine, families: Families) -> Vec<Component> {
    vec![etcd(), Component::alone(API_SERVER, &apiserver_flags(machine, families))]
}

fn etcd() -> Component {
    Component::of_cluster("etcd", &flags(&[("data-dir", ETCD_DATA)]))
}

fn apiserver_flags(machine: Machine, families: Families) -> Vec<String> {
    let addresses = families.addresses_of(machine);
    let address = addresses.first().map(ToString::to_string).unwrap_or_default();
    flags(&[
        ("advertise-address", &address),
        ("allow-privileged", "true"),
        ("authorization-mode", "Node,RBAC"),
        ("bind-address", "::"),
        ("client-ca-file", "@/ca.crt"),
        ("enable-admission-plugins", "NodeRestriction"),
        ("etcd-servers", "http://127.0.0.1:2379"),
        ("kubelet-certificate-authority", "@/ca.crt"),
        ("kubelet-client-certificate", "@/kubelet-client.crt"),
        ("kubelet-client-key", "@/kubelet-client.key"),
        ("kubelet-preferred-address-types", "InternalIP"),
        ("service-account-issuer", "https://kubernetes.default.svc"),
        ("service-account-key-file", "@/accounts.pub"),
        ("service-account-signing-key-file", "@/accounts.key"),
        ("service-cluster-ip-range", &families.service_cidrs()),
        ("tls-cert-file", "@/server.crt"),
        ("tls-private-key-file", "@/server.key"),
    ])
}

fn controller_manager_flags(families: Families, node_monitor_grace: Duration) -> Vec<String> {
    let grace = format!("{}s", node_monitor_grace.as_secs());
    flags(&[
        ("allocate-node-cidrs", "false"),
        ("cluster-cidr", &families.pod_cidrs()),
        // At the usual 20 requests a second it needs four seconds to get its controllers' tokens.
        ("kube-api-burst", "1000"),
        ("kube-api-qps", "1000"),
        ("kubeconfig", "@/controller-manager.kubeconfig"),
        ("leader-elect", "false"),
        ("node-monitor-grace-period", &grace),
        ("node-monitor-period", "1s"),
        ("root-ca-file", "@/ca.crt"),
        ("service-account-private-key-file", "@/accounts.key"),
        ("use-service-account-credentials", "true"),
    ])
}

/// The programs of a node, in the order in which they need one another.
pub(crate) fn node(machine: Machine, families: Families, proxy: ProxyMode) -> Vec<Component> {
    let containerd = ["containerd", "--config", &format!("{ETC}/containerd.toml")];
    vec![
        Component { name: "containerd", command: containerd.map(str::to_owned).to_vec() },
        Component::of_cluster("kubelet", &kubelet_flags(machine, families)),
        Component::of_cluster("kube-proxy", &proxy_flags(machine, families, proxy)),
    ]
}

fn kubelet_flags(machine: Machine, families: Families) -> Vec<String> {
    let addresses: Vec<String> =
        families.addresses_of(machine).iter().map(ToString::to_string).collect();
    let addresses = addresses.join(",");
    flags(&[
        ("config", "@/kubelet.json"),
        ("kubeconfig", "@/kubelet.kubeconfig"),
        ("hostname-override", &machine.to_string()),
        ("node-ip", &addresses),
    ])
}

fn proxy_flags(machine: Machine, families: Families, mode: ProxyMode) -> Vec<String> {
    let mode = match mode {
        ProxyMode::Nftables => "nftables",
        ProxyMode::Iptables => "iptables",
    };
    flags(&[
        ("kubeconfig", "@/proxy.kubeconfig"),
        ("hostname-override", &machine.to_string()),
        ("proxy-mode", mode),
        ("cluster-cidr", &families.pod_cidrs()),
        // These settings of the kernel cannot be written from a namespace.
        ("conntrack-max-per-core", "0"),
        ("conntrack-tcp-timeout-close-wait", "0"),
        ("conntrack-tcp-timeout-established", "0"),
    ])
}

/// kubelet's configuration. A node of the lab shares disk, memory and kernel log with the host, so
/// what manages those is switched off.
pub(crate) fn kubelet_config(
    lab: &LabName,
    machine: Machine,
    families: Families,
    node_monitor_grace: Duration,
) -> Value {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": families.any_address(),
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": false},
            "x509": {"clientCAFile": format!("{ETC}/ca.crt")},
        },
        "authorization": {"mode": "AlwaysAllow"},
        "tlsCertFile": format!("{ETC}/kubelet.crt"),
        "tlsPrivateKeyFile": format!("{ETC}/kubelet.key"),
        "containerRuntimeEndpoint": format!("unix://{CONTAINERD_SOCKET}"),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": cgroup::name(lab, machine),
        "cgroupsPerQOS": true,
        "enforceNodeAllocatable": [],
        "failCgroupV1": false,
        "failSwapOn": false,
        "featureGates": {"KubeletInUserNamespace": true},
        "localStorageCapacityIsolation": false,
        "evictionHard": {"nodefs.available": "0%", "imagefs.available": "0%", "memory.available": "0%"},
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        // The lease is renewed four times within its duration.
        "nodeLeaseDurationSeconds": node_monitor_grace.as_secs(),
        "nodeStatusUpdateFrequency": "2s",
        "resolvConf": format!("{ETC}/resolv.conf"),
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",
    })
}

/// containerd's configuration. Plugins that would write outside of the machine's folders are off.
pub(crate) fn containerd_config() -> String {
    format!(
        r#"version = 2
disabled_plugins = [
  "io.containerd.internal.v1.opt",
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
]

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  disable_apparmor = true
  restrict_oom_score_adj = true

[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "{CNI_BIN}"
  conf_dir = "{ETC}/cni"

[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "overlayfs"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
  SystemdCgroup = false
"#
    )
}

/// Where containerd finds the plugins of [`cni_plugins`].
pub(crate) const CNI_BIN: &str = "/var/lib/lab/cni";
/// The plugin that connects a pod.
const POD_CABLE: &str = "ptp-at-once";

/// The CNI plugins of a node, by name, as shell scripts: Debian's own, and `ptp` without the two
/// seconds in which a new pod would look for another owner of its IPv6 address.
pub(crate) fn cni_plugins() -> Vec<(String, String)> {
    let call = |name: &str| format!("exec {CNI_PLUGINS}/{name}\n");
    let without_dad = "[ \"$CNI_COMMAND\" != ADD ] || nsenter --net=\"$CNI_NETNS\" \\
    sh -c 'echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad'\n";
    let plain = ["host-local", "loopback", "portmap"].map(|name| (name.to_owned(), call(name)));
    let cable = (POD_CABLE.to_owned(), format!("{without_dad}{}", call("ptp")));
    let scripts = plain.into_iter().chain([cable]);
    scripts.map(|(name, lines)| (name, format!("#!/bin/sh\n{lines}"))).collect()
}

/// The pod network of a node: a cable from each pod to the node, addresses from the node's own
/// networks.
pub(crate) fn cni_config(machine: Machine, families: Families) -> Value {
    let subnets = families.pod_cidrs_of(machine);
    let ranges: Vec<Value> = subnets.iter().map(|subnet| json!([{"subnet": subnet}])).collect();
    let routes: Vec<Value> =
        families.of("0.0.0.0/0", "::/0").iter().map(|route| json!({"dst": route})).collect();
    json!({
        "cniVersion": "1.0.0",
        "name": "lab",
        "plugins": [
            {
                "type": POD_CABLE,
                "ipam": {
                    "type": "host-local",
                    "dataDir": "/var/lib/cni/networks",
                    "ranges": ranges,
                    "routes": routes,
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn components_are_recognised_by_their_words() {
        let table = [
            ("kubelet", "/var/lib/lab/bin/cluster kubelet --config=x", true),
            ("kubelet", "/var/lib/lab/bin/cluster kube-proxy", false),
            ("kubelet", "grep kubelet", false),
            ("kube-apiserver", "/var/lib/lab/bin/kube-apiserver --etcd-servers=x", true),
            ("containerd", "containerd --config x", true),
            ("containerd", "/usr/bin/containerd-shim-runc-v2 -id x", false),
        ];
        for (name, line, expected) in table {
            assert_eq!(Component::is(name, &words(line)), expected, "{line}");
        }
    }

    #[test]
    fn settings_of_a_node() {
        let lab = "demo".parse().unwrap();
        let families = Families::default();
        let kubelet = kubelet_config(&lab, Machine::Node(2), families, Duration::from_secs(8));
        assert_eq!(kubelet["cgroupRoot"], "/demo/node-2");
        assert_eq!(kubelet["nodeLeaseDurationSeconds"], 8);
        let cni = cni_config(Machine::Node(2), families);
        assert_eq!(cni["plugins"][0]["ipam"]["ranges"][1][0]["subnet"], "fd00:a4:2::/64");
        let proxy = &node(Machine::Node(2), families, ProxyMode::Iptables)[2];
        assert!(proxy.command.contains(&"--proxy-mode=iptables".to_owned()));
        let cni = cni_config(Machine::Node(2), Families::Ipv6Only);
        let ipam = &cni["plugins"][0]["ipam"];
        assert_eq!(ipam["ranges"], json!([[{"subnet": "fd00:a4:2::/64"}]]));
        assert_eq!(ipam["routes"], json!([{"dst": "::/0"}]));
        let kubelet = kubelet_flags(Machine::Node(2), Families::Ipv6First);
        assert!(kubelet.contains(&"--node-ip=fd00:a0::12,192.168.0.12".to_owned()), "{kubelet:?}");
    }
}
