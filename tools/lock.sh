#!/bin/sh
# Makes constraints.txt and hashes.txt: versions and hashes of all that the requirements files bring in, for CPU, GPU and
# web hosts; and requirements-uv.txt, from which the set-up gets uv.
# What stands there is kept where it fits; UPGRADE=--upgrade takes the newest versions that fit.
set -eu
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
uv=".venv/bin/python -m everstream.uv"
resolve="$uv pip compile --quiet --no-annotate --no-header --python-version 3.11 ${UPGRADE:-}"

# torch is left out: its builds for CPUs and for CUDA have one name, and each requirements file pins its own.
pins() { sed -n 's/^\([A-Za-z0-9._-]*==[^ ;]*\).*/\1/p' "$@" | grep -v '^torch=='; }

# Without the line that names constraints.txt, as its versions would hold.
for file in requirements*.txt; do grep -v '^-c constraints.txt' "$file" >"$work/$file"; done
pins constraints.txt >"$work/cpu"
cp "$work/cpu" "$work/gpu"
$resolve --excludes requirements-cpu.excludes -o "$work/cpu" "$work/requirements-cpu.txt" "$work/requirements-dev.txt"
pins "$work/cpu" >"$work/shared"
$resolve -c "$work/shared" -o "$work/gpu" "$work/requirements.txt"
pins "$work/cpu" "$work/gpu" | sort -u >"$work/pins"
hash="$uv pip compile --quiet --no-deps --no-annotate --no-header --universal --python-version 3.11 --generate-hashes"
{
    echo "# Versions of all that the requirements files bring in, on Linux; each of them reads this file. Made by \`make lock\`."
    echo "# Not in it: torch, whose builds for CPUs and for CUDA have one name."
    cat "$work/pins"
} >"$work/constraints.txt"
{
    echo "# constraints.txt with hashes, for uv. Made by \`make lock\`. In a file of its own, as older versions of pip stop at"
    echo "# hashes in constraints."
    $hash "$work/pins"
} >"$work/hashes.txt"
{
    echo "# uv, which installs the rest. Made by \`make lock\` of the version in requirements-engine.txt."
    grep '^uv==' "$work/pins" | $hash -
} >"$work/requirements-uv.txt"
mv "$work/constraints.txt" "$work/hashes.txt" "$work/requirements-uv.txt" .
