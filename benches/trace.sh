#!/usr/bin/env bash
# That the barriers of the rows which claim durability reach the kernel: the workloads run under strace, and the calls of
# fsync, fdatasync and syncfs, less those of a workload that only makes a repository with one file in it, are held against
# the commits that the workload counted. Fails where there are fewer.
#
#   benches/trace.sh
set -euo pipefail

root="$(cd "$(dirname "$0")/.." && pwd)"
cd "$root"
if ! command -v strace >/dev/null; then
    echo "install strace first (Debian: apt-get install strace)" >&2
    exit 1
fi
scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT
export CARGO_INCREMENTAL=0
# The program itself, not cargo, is traced.
program="$(cargo bench -q -p strongroom-benches --bench workloads --no-run --message-format=json |
    sed -n 's/.*"executable":"\([^"]*workloads[^"]*\)".*/\1/p' | tail -1)"

# Sets `calls` for a workload.
count() {
    rm -f "$scratch"/*
    strace -f -c -o "$scratch/calls" -e trace=fsync,fdatasync,syncfs \
        "$program" --smoke --filter "$1" --json "$scratch/figures" >"$scratch/output" 2>&1 ||
        { cat "$scratch/output" >&2; exit 1; }
    calls="$(awk '$NF ~ /^(fsync|fdatasync|syncfs)$/ { total += $4 } END { print total + 0 }' "$scratch/calls")"
}

count file/random-reads
base="$calls"
for workload in file/create/1 file/append file/kv/large; do
    count "$workload"
    commits="$(sed -n 's/.*"commits":\([0-9]*\).*/\1/p' "$scratch/figures" | awk '{ total += $1 } END { print total + 0 }')"
    echo "$workload: $commits commits, $calls calls of fsync, fdatasync or syncfs, $base of them around"
    if [ "$commits" -eq 0 ] || [ $((calls - base)) -lt "$commits" ]; then
        echo "$workload: fewer calls than commits" >&2
        exit 1
    fi
done
