# Read by the build scripts of Go programs beside it: builds once, keeps the result in the user's cache, shows progress.
#
# The result is kept under a key of the sources and the Go version, so that a second call is instant and a change of either
# builds anew. Progress goes to stderr, the folder alone to stdout.
#
# The script that reads this has set `name`, has moved to its own folder, and calls `require_go` and `cached`.

go_needed=1.26
report_every=10 # seconds
cache=${XDG_CACHE_HOME:-$HOME/.cache}/arpeggio/$name

say() { echo "$name: $*" >&2; }
fail() { say "$*"; exit 1; }

# Go 1.21 and newer fetch the release that go.mod asks for by themselves; older ones cannot even read it.
require_go() {
    command -v go >/dev/null ||
        fail "Go $go_needed or newer is needed to build this, and there is none: install it from https://go.dev/dl and put its bin folder into PATH"
    found=$(GOTOOLCHAIN=local go env GOVERSION 2>/dev/null || echo unknown)
    oldest=$(printf '%s\n' "$found" "go$go_needed" go1.21 | sort -V | head -n 1)
    case $oldest in
        "go$go_needed" | go1.21) ;;
        *) fail "Go $go_needed or newer is needed to build this, found $found: install it from https://go.dev/dl" ;;
    esac
    [ "$(printf '%s\n' "$found" "go$go_needed" | sort -V | head -n 1)" = "go$go_needed" ] ||
        export GOTOOLCHAIN="go$go_needed.0+auto"
}

key() {
    { go env GOVERSION GOARCH; cat ../go-build.sh "$@"; } | sha256sum | cut -c 1-16
}

# One line now and then while a background process runs: how many packages `go build -v` has named so far.
report_progress() {
    started=$(date +%s)
    # The pause between two lines must not keep the caller's pipe open, nor the lock.
    while sleep "$report_every" >/dev/null 2>&1 9>&- && kill -0 "$1" 2>/dev/null; do
        seconds=$(($(date +%s) - started))
        say "building Kubernetes $kubernetes_version: $(grep -c '^[a-z][^ ]*$' "$2") packages compiled ($seconds s; about $expected the first time)"
    done
}

# Builds programs of Kubernetes into the folder $1; the rest says which. `kubernetes_version` is what they call themselves,
# `expected` what the first time takes.
build_kubernetes() {
    into=$1
    shift
    say "building Kubernetes $kubernetes_version into $into (once; kept for the next time)"
    minor=${kubernetes_version#v1.}
    version="-X k8s.io/component-base/version.gitVersion=$kubernetes_version"
    version="$version -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=${minor%%.*}"
    version="$version -X k8s.io/component-base/version.gitTreeState=clean"
    CGO_ENABLED=0 go build -v -trimpath -buildvcs=false -ldflags "-s -w $version" -o "$into/" "$@" 2>"$into/build.log" &
    build=$!
    trap 'kill "$build" 2>/dev/null; exit 130' INT TERM
    report_progress "$build" "$into/build.log" >/dev/null &
    reporter=$!
    status=0
    wait "$build" || status=$?
    kill "$reporter" 2>/dev/null || true
    trap - INT TERM
    [ "$status" -eq 0 ] && return
    grep -v '^[a-z][^ ]*$' "$into/build.log" | tail -n 20 >&2
    return "$status"
}

# Prints the folder that holds what `compile FOLDER` builds of the files that are named.
cached() {
    target=$cache/$(key "$@")
    mkdir -p "$cache"
    exec 9>"$cache/lock"
    if ! flock -n 9; then
        say "another build is running, waiting for it"
        flock 9
    fi
    if [ ! -d "$target" ]; then
        rm -rf "$cache"/*.partial
        mkdir "$target.partial"
        compile "$target.partial" ||
            fail "the build failed (it ended with $?; the last messages are above). If a download failed, run it again: what is there is kept"
        mv "$target.partial" "$target"
        # Older keys are of no use to anybody any more, and large.
        find "$cache" -mindepth 1 -maxdepth 1 -type d ! -path "$target" -exec rm -rf {} +
    fi
    echo "$target"
}
