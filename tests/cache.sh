# shellcheck shell=sh disable=SC2034,SC2154 # set by the script that reads this, or used by it
# Read by the scripts beside it that make something with other means than Go: it is made once and kept in the user's cache.
# (go-build.sh does the same for Go programs, under a key of their sources.)
#
# The script that reads this has set `name`, which its messages begin with.

cache=${XDG_CACHE_HOME:-$HOME/.cache}/arpeggio

say() { echo "$name: $*" >&2; }
fail() { say "$*"; exit 1; }

# Makes the folder $1 by `make_it FOLDER`, unless the program $2 is in it. Who comes second waits; the lock is held until the
# script ends.
once() {
    mkdir -p "$(dirname "$1")"
    exec 9>"$1.lock"
    if ! flock -n 9; then
        say "another build is running, waiting for it"
        flock 9
    fi
    [ ! -x "$1/$2" ] || return 0
    [ ! -d "$1" ] || rmdir "$1" 2>/dev/null || fail "$1 has no $2: remove that folder, then run this again"
    rm -rf "$1.partial"
    mkdir "$1.partial"
    # Not in a condition: there a command that fails would not end it.
    make_it "$1.partial"
    mv "$1.partial" "$1"
}
