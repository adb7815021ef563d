#!/bin/sh
# Runs what can be run of vagrant/ without virtual machines: Vagrant reads its file, and the router's script and the probe run on a
# Debian of its own in network namespaces, with a client on each side. Needs root, and what vagrant-packages.txt names; fetches about 100 MB
# once, which are kept in ROOT, a folder of the user's cache.
set -eu

cd "$(dirname "$0")/../vagrant"
id=arpeggio-vagrant-$$
work=$(mktemp -d)
name=vagrant
. ../tests/cache.sh
root=${ROOT:-$cache/debian}

clean_up() {
    # The page's server is the last process of its namespace, the probe ends by itself.
    for child in $(ip netns pids "$id-segment" 2>/dev/null); do kill "$child" 2>/dev/null || true; done
    for place in internet router segment; do ip netns del "$id-$place" 2>/dev/null || true; done
    rm -rf --one-file-system "$work"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

in_namespace() {
    namespace=$id-$1
    shift
    ip netns exec "$namespace" "$@"
}

# In the router's namespace and the Debian's files.
on_router() {
    # shellcheck disable=SC2016 # for the inner shell
    in_namespace router unshare --mount sh -c 'mount -t proc proc "$0/proc" && exec chroot "$0" "$@"' "$root" "$@"
}

# In a copy, with what 'vagrant up' makes or wants to be there.
say "Vagrant reads its file"
mkdir -p "$work/clone/vagrant/.vagrant" "$work/clone/target/images/x86_64" "$work/home"
cp -- * "$work/clone/vagrant/"
cp -r ../manifests "$work/clone/"
touch "$work/clone/vagrant/.vagrant/demo-key" "$work/clone/vagrant/.vagrant/demo-key.pub"
(cd "$work/clone/vagrant" && VAGRANT_HOME=$work/home vagrant validate --ignore-provider) >&2

# What stands before the machines in the file, as 'vagrant up' has it.
before_machines() {
    (cd "$work/clone/vagrant" &&
        ruby -e 'module Vagrant; def self.configure(*) = nil; end; ARGV.replace(["up"]); load "Vagrantfile"')
}
say "'vagrant up' wants the images that 'make images' writes"
! before_machines 2>/dev/null || { say "it does without them"; exit 1; }
version=$(sed -n 's/^version = "\(.*\)"/\1/p' ../Cargo.toml)
write_images() {
    for image in controller speaker forwarder; do touch "$work/clone/target/images/x86_64/arpeggio-$image-$1-amd64.tar"; done
}
write_images 0.0.0
! before_machines 2>/dev/null || { say "it takes images of another version than install.yaml asks for"; exit 1; }
write_images "$version"
before_machines

make_it() {
    say "a Debian of its own in $root"
    packages=iproute2,procps,nftables,python3,openssh-client,curl
    debootstrap --variant=minbase --include="$packages" bookworm "$1" >"$work/debootstrap.log" ||
        { tail -n 5 "$work/debootstrap.log" >&2; exit 1; }
}
once "$root" usr/sbin/nft
install -m 755 router.sh probe.py "$root/tmp/"

for place in internet router segment; do
    ip netns add "$id-$place"
    in_namespace "$place" ip link set lo up
done
# As in a virtual machine: eth0 leads outside, eth1 to the segment.
for pair in internet:eth0:203.0.113 segment:eth1:192.168.50; do
    place=${pair%%:*}
    rest=${pair#*:}
    in_namespace router ip link add "${rest%%:*}" type veth peer name eth0 netns "$id-$place"
    in_namespace router ip address add "${rest#*:}.254/24" dev "${rest%%:*}"
    in_namespace router ip link set "${rest%%:*}" up
    in_namespace "$place" ip link set eth0 up
done
in_namespace internet ip address add 203.0.113.9/24 dev eth0
in_namespace segment ip address add 192.168.50.240/24 dev eth0

mkdir "$work/page"
echo "the page" >"$work/page/index.html"
in_namespace segment python3 -m http.server --directory "$work/page" 80 >/dev/null 2>&1 9>&- &
in_namespace segment curl --silent --retry 20 --retry-delay 1 --retry-connrefused --output /dev/null http://192.168.50.240/ ||
    { say "the page's server does not answer"; exit 1; }

say "the router's script, twice: a second 'vagrant provision' must do no harm"
on_router /tmp/router.sh 192.168.50.254 192.168.50.240
on_router /tmp/router.sh 192.168.50.254 192.168.50.240
[ "$(on_router nft list ruleset | grep -c 'dnat to')" -eq 2 ]

ask() { in_namespace "$1" curl --silent --fail --max-time 5 "http://$2/"; }
for way in internet:203.0.113.254 router:203.0.113.254 router:192.168.50.240; do
    [ "$(ask "${way%%:*}" "${way#*:}")" = "the page" ] || { say "no page from $way"; exit 1; }
    say "the page from $way"
done

say "the probe, while the page is away for a second"
on_router python3 /tmp/probe.py 192.168.50.240 4 >"$work/report" &
probe=$!
sleep 1
in_namespace segment ip link set eth0 down
sleep 1
in_namespace segment ip link set eth0 up
wait "$probe"
cat "$work/report"
gap=$(sed -n 's/.* an answer: \([0-9]*\) ms/\1/p' "$work/report")
if [ "$gap" -lt 900 ] || [ "$gap" -gt 3500 ]; then
    say "that is not what happened"
    exit 1
fi

say "an address that no interface has is refused"
! on_router /tmp/router.sh 192.168.99.1 192.168.50.240 || exit 1
say "done"
