#!/bin/bash
# Boots Debian's kernels (kernels.txt, or those that are named: run.sh SUITE...) in QEMU and runs the tests in them that need a
# real kernel (programs.txt): those for which this machine's own kernel lacks devices (VLAN, bond, VRF, Wi-Fi, IPVS), all others
# of the link and of the commands that look at interfaces, and some of the forwarder's rules.
#
# With ARPEGGIO_SCENARIO_TRIES=N, a program whose tests fail is run N times at most, as a scenario is; what is said shows it.
#
# A machine has one processor, which is emulated, so that it is the same everywhere; no disk and no network: its root is in memory.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
seconds=900 # a machine's time: three took 380 at most where much else ran

say() { echo "machines: $*" >&2; }

cd "$root"
if [ $# -gt 0 ]; then suites=("$@"); else
    mapfile -t suites < <(sed -n 's/^\([a-z][^ ]*\).*/\1/p' "$here/kernels.txt")
fi
work=$(mktemp -d)
machines=()
trap '[ ${#machines[@]} -eq 0 ] || kill "${machines[@]}" 2>/dev/null || true; rm -rf "$work"' EXIT

# The test programs that have to do with a kernel, one per line.
build_tests() {
    local names
    mapfile -t names < <(sed -n 's/^\([a-z][^ ]*\).*/--test=\1/p' "$here/programs.txt" | sort -u)
    cargo test --no-run --workspace --locked "${names[@]}" 2>&1 | tee "$work/build.log" >&2
    sed -n 's/^ *Executable.*(\(.*\))$/\1/p' "$work/build.log"
}

# A test that has another name now would be left out without a word.
check_names() {
    local program names wanted path
    while read -r program _ names; do
        [ -n "$names" ] || continue
        read -ra wanted <<<"$names"
        path=$(grep "/$program-[0-9a-f]*$" "$work/tests.txt")
        [ "$("$root/$path" --list --exact "${wanted[@]}" | grep -c ': test$')" -eq ${#wanted[@]} ] ||
            { say "not all of these are tests of $program: $names"; return 1; }
    done < <(grep -v '^#' "$here/programs.txt")
}

# Copies a program with the libraries that it needs to the same place below the machine's root.
install_program() {
    local file
    for file in "$1" $(ldd "$1" 2>/dev/null | grep -o '/[^ ]*'); do
        mkdir -p "$work/root$(dirname "$file")"
        cp --dereference --no-clobber "$file" "$work/root$file"
    done
}

make_root() {
    mkdir -p "$work/root"/{tests,usr/bin,usr/sbin}
    ln -s usr/bin usr/sbin "$work/root/"
    cp "$(command -v busybox)" "$work/root/bin/busybox"
    local applet program test
    for applet in sh mount mkdir cat sleep poweroff ls dmesg; do ln -s busybox "$work/root/bin/$applet"; done
    for program in ip tc bridge iw modprobe nft ping setpriv; do install_program "$(command -v $program)"; done
    while read -r test; do
        install_program "$root/$test"
        strip -o "$work/root/tests/$(basename "${test%-*}")" "$root/$test"
        rm "$work/root$root/$test"
    done
    # The tests of the commands know it by its place.
    install_program "$root/target/debug/arpeggio"
    strip "$work/root$root/target/debug/arpeggio"
    # By it nft knows the names of protocols.
    mkdir -p "$work/root/etc" && cp /etc/protocols "$work/root/etc/"
    grep -v '^#' "$here/programs.txt" >"$work/root/programs"
    cp "$here/init" "$work/root/init"
    chmod 755 "$work/root/init"
}

# Begins to boot a suite's kernel.
boot() {
    local suite=$1 kernel=$2
    { (cd "$work/root" && find . | cpio -o -H newc --quiet); (cd "$kernel" && find lib | cpio -o -H newc --quiet); } >"$work/$suite.initrd"
    timeout "$seconds" qemu-system-x86_64 -accel tcg -cpu max -m 1024 -nodefaults -display none -no-reboot \
        -serial file:"$work/$suite.console" -kernel "$kernel/vmlinuz" -initrd "$work/$suite.initrd" \
        -append "console=ttyS0 quiet panic=-1 net.ifnames=0 tries=${ARPEGGIO_SCENARIO_TRIES:-1}" &
    machines+=($!)
}

build_tests >"$work/tests.txt"
check_names
make_root <"$work/tests.txt"
for suite in "${suites[@]}"; do "$here/kernel.sh" "$suite" >"$work/$suite.kernel"; done
# Side by side: each has one processor.
begin=$SECONDS
for suite in "${suites[@]}"; do
    kernel=$(cat "$work/$suite.kernel")
    say "booting Linux $(cat "$kernel/version")"
    boot "$suite" "$kernel"
done
failed=()
for at in "${!suites[@]}"; do
    suite=${suites[$at]}
    wait "${machines[$at]}" || true
    say "that of $suite has ended after $((SECONDS - begin)) s, and said:"
    tr -d '\r' <"$work/$suite.console"
    grep -q '^machine: all passed' "$work/$suite.console" || failed+=("$suite")
done
machines=()
[ ${#failed[@]} -eq 0 ] || { say "FAILED with the kernels of: ${failed[*]}"; exit 1; }
say "all passed with the kernels of: ${suites[*]}"
