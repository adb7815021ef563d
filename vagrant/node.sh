#!/bin/sh
# Makes a machine a node of the cluster: node.sh NAME ADDRESS SERVER. The one whose address is SERVER makes the cluster, the
# others join it. k3s, since one program is all that has to be fetched.
set -eu

name=$1
address=$2
server=$3

version=v1.34.1+k3s1
# Whoever reaches the segment may join: it holds these machines only.
token=arpeggio

say() { echo "$name: $*"; }

# Of the network that the machines share, not of the one by which they reach the internet.
device() { ip -o -4 address show to "$address" | awk '{print $2}'; }

authorize_demo() {
    install -d -m 700 /root/.ssh
    grep -qxFf /tmp/demo-key.pub /root/.ssh/authorized_keys 2>/dev/null ||
        cat /tmp/demo-key.pub >>/root/.ssh/authorized_keys
    chmod 600 /root/.ssh/authorized_keys
}

options() {
    echo "--node-name $name --node-ip $address --flannel-iface $(device)"
    [ "$address" = "$server" ] || return 0
    # Arpeggio takes the place of k3s' own load balancer.
    echo "--disable servicelb --disable traefik --write-kubeconfig-mode 644"
}

install_k3s() {
    command -v curl >/dev/null || {
        apt-get update -q
        DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends ca-certificates curl
    }
    curl --fail --silent --show-error --location --retry 5 --output /tmp/k3s.sh https://get.k3s.io
    if [ "$address" = "$server" ]; then
        role=server
    else
        role=agent
        export K3S_URL="https://$server:6443"
    fi
    INSTALL_K3S_EXEC="$role $(options | tr '\n' ' ')"
    export INSTALL_K3S_EXEC INSTALL_K3S_VERSION="$version" K3S_TOKEN="$token"
    sh /tmp/k3s.sh
}

# k3s imports what lies here whenever it starts.
give_images() {
    install -d /var/lib/rancher/k3s/agent/images
    cp /arpeggio/images/arpeggio-*-amd64.tar /var/lib/rancher/k3s/agent/images/
}

[ -n "$(device)" ] || {
    say "no interface has $address: has the machine joined the network?" >&2
    exit 1
}
authorize_demo
give_images
install_k3s
say "done"
