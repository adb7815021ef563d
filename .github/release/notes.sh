#!/bin/sh
# Prints what CHANGELOG.md says of the version given. A release without a word of what has changed is a mistake.
set -eu

version=$1
cd "$(dirname "$0")/../.."
notes=$(awk -v wanted="## $version" '
    /^## / { inside = ($0 == wanted || index($0, wanted " ") == 1); next }
    inside
' CHANGELOG.md)
[ -n "$notes" ] || {
    echo "notes: CHANGELOG.md has no section '## $version': rename 'Unreleased'" >&2
    exit 1
}
echo "$notes"
