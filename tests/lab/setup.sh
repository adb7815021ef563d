#!/bin/sh
# Installs what packages.txt, or the list that is named, has and this machine lacks. Starts no service, also not at the next
# boot: the lab runs its own containerd, keepalived and nginx, and those of the package would only be in somebody's way.
set -eu

list=${1:-$(dirname "$0")/packages.txt}
policy=/usr/sbin/policy-rc.d

say() { echo "setup: $*" >&2; }

wanted() { grep -v -e '^#' -e '^$' "$list"; }

# The first name of each line of which no alternative is installed.
missing() {
    installed=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' | sed -n 's/^installed //p')
    wanted | while IFS= read -r line; do
        pattern=$(echo "$line" | sed 's/[.+]/\\&/g')
        echo "$installed" | grep -qxE "$pattern" || echo "${line%%|*}"
    done
}

# Debian's own way to say "start nothing": a policy that forbids it, for the time of the installation. One that the
# machine has already is its owner's, and stays.
forbid_services() {
    [ -e "$policy" ] && return
    trap 'rm -f "$policy"' EXIT
    trap 'exit 130' INT TERM
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
}

# Only units that this run has brought: an owner's own nginx goes on as it was.
disable_at_boot() {
    command -v systemctl >/dev/null || return 0
    for package in "$@"; do
        case $package in
            bind9) systemctl disable --quiet named.service ;;
            containerd) systemctl disable --quiet containerd.service ;;
            haproxy) systemctl disable --quiet haproxy.service ;;
            keepalived) systemctl disable --quiet keepalived.service ;;
            prometheus) systemctl disable --quiet prometheus.service ;;
            openssh-server) systemctl disable --quiet ssh.service ;;
            nginx*) systemctl disable --quiet nginx.service ;;
        esac
    done >/dev/null 2>&1 || true
}

command -v dpkg-query >/dev/null || {
    say "this is not a Debian system: install what $list names in your own way"
    exit 1
}
packages=$(missing)
[ -n "$packages" ] || exit 0
# shellcheck disable=SC2086 # a list of words
set -- $packages
[ "$(id -u)" -eq 0 ] || {
    say "root is needed to install them: sudo apt-get install --no-install-recommends $*"
    exit 1
}
say "installing $*"
log=$(mktemp)
forbid_services
install() {
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@" >"$log" 2>&1
}
if ! install "$@"; then
    say "not found at once: reading the package lists anew"
    if ! apt-get update -q >>"$log" 2>&1 || ! install "$@"; then
        tail -n 20 "$log" >&2
        say "apt-get failed, its last messages are above"
        exit 1
    fi
fi
rm -f "$log"
disable_at_boot "$@"
say "done"
