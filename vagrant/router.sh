#!/bin/sh
# Makes a machine the router of the segment: router.sh ADDRESS SERVICE. As a home router does, it forwards its port 80 to the
# Service, and knows nothing of Arpeggio.
set -eu

address=$1
service=$2

inside=$(ip -o -4 address show to "$address" | awk '{print $2}')
[ -n "$inside" ] || {
    echo "router: no interface has $address: has the machine joined the network?" >&2
    exit 1
}

missing=
for program in nft:nftables python3:python3 ssh:openssh-client curl:curl; do
    command -v "${program%%:*}" >/dev/null || missing="$missing ${program##*:}"
done
if [ -n "$missing" ]; then
    apt-get update -q
    # shellcheck disable=SC2086 # a list of words
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing
fi

echo 'net.ipv4.ip_forward = 1' >/etc/sysctl.d/arpeggio.conf
sysctl --quiet --load /etc/sysctl.d/arpeggio.conf

cat >/etc/nftables.conf <<END
#!/usr/sbin/nft -f
table ip arpeggio
delete table ip arpeggio
table ip arpeggio {
    chain prerouting {
        type nat hook prerouting priority dstnat
        iifname != "$inside" tcp dport 80 dnat to $service
    }
    # What the machine itself asks for at its own address, as libvirt's forwarded ports do.
    chain output {
        type nat hook output priority -100
        fib daddr type local tcp dport 80 dnat to $service
    }
    # Nodes answer to the router: who is behind it is the router's business.
    chain postrouting {
        type nat hook postrouting priority srcnat
        oifname "$inside" masquerade
    }
}
END
nft --file /etc/nftables.conf
# Also at the next boot, where there is a system to boot.
if [ -d /run/systemd/system ]; then systemctl enable --quiet nftables.service; fi
