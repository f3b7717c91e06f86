#!/usr/bin/env bash
# Our workloads and ZboxFS's, in turns, in one run; then the tables of docs/benchmarks.md are made of the figures.
#
#   benches/compare.sh                      everything, three rounds
#   benches/compare.sh --smoke              that it runs, in seconds; no page is changed
#   benches/compare.sh --filter mem/create  only these workloads; no page is changed
#
# ROUNDS=N for more rounds, DIR=D for where repositories are made, FIGURES=F for where the lines of JSON go, LONG=0 without
# the ladders of minutes (100,000 appends, 1,000,000 files and keys), which run once, after the rounds.
set -euo pipefail

root="$(cd "$(dirname "$0")/.." && pwd)"
cd "$root"
export CARGO_INCREMENTAL=0
target="${CARGO_TARGET_DIR:-$root/target}"
figures="${FIGURES:-$target/figures.jsonl}"
mkdir -p "$(dirname "$figures")"

# ZboxFS links libsodium.
if ! pkg-config --exists libsodium 2>/dev/null; then
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
        echo "install libsodium's development files and pkg-config first (Debian: apt-get install libsodium-dev pkg-config)" >&2
        exit 1
    fi
    apt-get update -qq && apt-get install -y -qq libsodium-dev pkg-config >&2
fi

# The program itself runs, not cargo: what is edited meanwhile does not get in.
program="$(cargo bench -q -p strongroom-benches --bench workloads --no-run --message-format=json |
    sed -n 's/.*"executable":"\([^"]*workloads[^"]*\)".*/\1/p' | tail -1)"
CARGO_TARGET_DIR="$target/peers" cargo build --release --locked --manifest-path benches/peers/zbox/Cargo.toml
ours=("$program" --rounds 1 --json "$figures")
theirs=("$target/peers/release/strongroom-bench-zbox" --rounds 1 --json "$figures")
if [ -n "${DIR:-}" ]; then
    ours+=(--dir "$DIR")
    theirs+=(--dir "$DIR")
fi

rounds="${ROUNDS:-3}"
if [[ " $* " == *" --smoke "* ]]; then
    rounds=1
fi
load="$(cut -d' ' -f1 /proc/loadavg 2>/dev/null || echo '?')"
rm -f "$figures"
for ((round = 1; round <= rounds; round++)); do
    echo "=== round $round" >&2
    "${ours[@]}" "$@"
    "${theirs[@]}" "$@"
done
if [ $# -gt 0 ]; then
    echo "figures: $figures" >&2
    exit
fi
if [ "${LONG:-1}" = 1 ]; then
    echo "=== long ladders" >&2
    "${ours[@]}" --long --filter append,open,kv/small
    "${theirs[@]}" --long --filter file/many-files
fi

machine="$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1), $(nproc) cores, $(uname -sr)"
note="$(date -u +%Y-%m-%d), $machine, $(rustc --version), commit $(git rev-parse --short HEAD); load of the machine at the beginning: $load."
if ! awk -v load="$load" 'BEGIN { exit !(load + 0 < 0.5) }'; then
    note="**Noisy: the machine was doing other work.** $note"
fi
cargo run -q --release -p strongroom-benches --bin figures -- benchmarks "$figures" "$note"
