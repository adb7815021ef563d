#!/bin/sh
# Fetches Debian's kernel of a suite into a folder: `fetch.sh SUITE FOLDER`. Called by kernel.sh, which keeps the result.
#
# Nothing is installed: the package is only unpacked, and what a network does not need is left out. The lists of packages
# have a folder of their own, so that this machine's stay as they are.
set -eu

suite=$1
into=$2

fail() { echo "machines: $*" >&2; exit 1; }

# Where this machine gets Debian's packages from.
mirror() {
    # shellcheck disable=SC2016 # apt's own variables
    apt-get indextargets --format '$(SITE) $(LABEL)' 'Created-By: Packages' 'Origin: Debian' |
        sed -n 's/ Debian$//p' | head -n 1
}

fetch() {
    site=$(mirror)
    [ -n "$site" ] || fail "apt knows no source of Debian's packages: run 'apt-get update' once"
    mkdir -p lists/partial archives/partial
    touch status
    echo "deb $site $suite main" >sources.list
    set -- -q -o Dir::State::lists="$PWD/lists" -o Dir::State::status="$PWD/status" -o Dir::Cache="$PWD" \
        -o APT::Sandbox::User=root -o Dir::Cache::archives="$PWD/archives" -o Dir::Etc::sourcelist="$PWD/sources.list" -o Dir::Etc::sourceparts=/dev/null
    apt-get "$@" update >&2
    image=$(apt-cache "$@" depends --important linux-image-amd64 | sed -n 's/.*Depends: \(linux-image-\)/\1/p' | head -n 1)
    [ -n "$image" ] || fail "Debian's suite $suite has no linux-image-amd64"
    # Since Linux 6.19 the kernel and its modules have packages of their own.
    parts=$(apt-cache "$@" depends --important "$image" | sed -n 's/.*Depends: \(linux-\(binary\|modules\)-[0-9]\)/\1/p')
    # shellcheck disable=SC2086 # a list of words
    apt-get "$@" download "$image" $parts >&2
}

# A machine in a test has no disk, no screen and no card: what belongs to networks is enough.
unpack() {
    for archive in *.deb; do dpkg-deb -x "$archive" package; done
    if [ -d package/usr/lib/modules ]; then mkdir -p package/lib && mv package/usr/lib/modules package/lib/; fi
    version=$(ls package/lib/modules)
    modules=lib/modules/$version
    mkdir -p "kernel/$modules/kernel/drivers/net"
    find package -type f -name 'vmlinuz*' -exec mv {} kernel/vmlinuz \;
    # What is built in; newer packages leave that to their scripts.
    find package/"$modules" -maxdepth 1 -type f -exec mv {} "kernel/$modules/" \;
    for part in net crypto lib arch/x86/crypto drivers/net/bonding drivers/net/team drivers/net/ipvlan drivers/net/dummy.ko \
        drivers/net/macvlan.ko drivers/net/veth.ko drivers/net/vrf.ko drivers/net/tun.ko drivers/net/wireless drivers/virtio; do
        for found in package/"$modules"/kernel/"$part" package/"$modules"/kernel/"$part".xz; do
            [ -e "$found" ] || continue
            to=kernel/$modules/kernel/${part%/*}
            mkdir -p "$to" && mv "$found" "$to/"
        done
    done
    find kernel/"$modules" -path '*/drivers/net/wireless/*' -name '*.ko*' ! -name 'mac80211_hwsim.ko*' -delete
    find kernel/"$modules" -name '*.ko.xz' -exec xz -d {} +
    depmod -b kernel "$version"
    echo "$version" >kernel/version
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
cd "$work"
fetch
unpack
mv kernel/* "$into/"
