#!/bin/sh
# The demo's steps, on the router: demo.sh ADDRESS SERVER. Cuts the power of the node that announces the address, and says what
# a client saw. The node boots again by itself.
set -eu

address=$1
server=$2

seconds=12 # of requests; the power is cut after two

on() {
    machine=$1
    shift
    ssh -i "$HOME/.ssh/demo-key" -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR \
        -o ConnectTimeout=5 "root@$machine" "$@"
}
# The other shell reads the words again.
quoted() { for word in "$@"; do printf "'%s' " "$(printf %s "$word" | sed "s/'/'\\\\''/g")"; done; }
kubectl() { on "$server" "k3s kubectl $(quoted "$@")"; }
title() { printf '\n== %s\n' "$*"; }
owner() { kubectl get lease -n arpeggio-system "address-$address" -o 'jsonpath={.spec.holderIdentity}'; }
# The first, where a node has one of each family.
address_of() { kubectl get node "$1" -o 'jsonpath={.status.addresses[?(@.type=="InternalIP")].address}' | cut -d ' ' -f 1; }

# Asks until an answer comes; $1 seconds at most.
page() {
    for _ in $(seq "$1"); do
        curl --silent --fail --max-time 1 "http://$address/" && return
        sleep 1
    done
    echo "demo: http://$address/ does not answer" >&2
    exit 1
}

chmod 600 "$HOME/.ssh/demo-key"
title "A page behind an address"
kubectl rollout status -n arpeggio-system --timeout 5m daemonset/arpeggio-speaker
kubectl rollout status --timeout 5m deployment/web
page 60

title "The stage is cleared"
from=$(owner)
# Without the API server there is nobody to ask afterwards, so the server itself does not have the address.
if [ "$(address_of "$from")" = "$server" ]; then
    to=$(kubectl get nodes -o name --selector '!node-role.kubernetes.io/control-plane' | head -n 1)
    kubectl annotate lease -n arpeggio-system "address-$address" "arpeggio.dev/move-to=${to#node/}"
    sleep 3
    from=$(owner)
fi
echo "$from announces $address. The web pods leave it: Kubernetes needs long to notice that pods are lost."
kubectl patch deployment web --patch "{\"spec\": {\"template\": {\"spec\": {\"affinity\": {\"nodeAffinity\":
    {\"requiredDuringSchedulingIgnoredDuringExecution\": {\"nodeSelectorTerms\": [{\"matchExpressions\":
    [{\"key\": \"kubernetes.io/hostname\", \"operator\": \"NotIn\", \"values\": [\"$from\"]}]}]}}}}}}}"
kubectl rollout status --timeout 5m deployment/web
page 10

title "The power of $from is cut"
report=$(mktemp)
python3 /tmp/probe.py "$address" "$seconds" >"$report" &
probe=$!
sleep 2
# The kernel ends at once, with nothing written and nobody told.
on "$(address_of "$from")" 'echo 1 >/proc/sys/kernel/sysrq; (sleep 0.2; echo b >/proc/sysrq-trigger) >/dev/null 2>&1 &'
wait "$probe" || { cat "$report"; exit 1; }
cat "$report"
rm -f "$report"
to=$(owner)
[ "$to" != "$from" ] || {
    echo "demo: $from still has the address: was its power cut?" >&2
    exit 1
}
echo "$to announces it now:"
kubectl get events --field-selector reason=nodeAssigned | tail -n 2

title "$from comes back"
sleep 60
echo "Nothing moves back: $(owner) announces $address"
page 10
