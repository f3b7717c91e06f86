#!/usr/bin/env bash
# What docs/decisions/0005 rests on: the workloads that the block size matters to, for each block size; then its table.
#
#   benches/decide.sh            three rounds     (ROUNDS=N for more, DIR=D for where repositories are made)
set -euo pipefail

root="$(cd "$(dirname "$0")/.." && pwd)"
cd "$root"
export CARGO_INCREMENTAL=0
target="${CARGO_TARGET_DIR:-$root/target}"
figures="${FIGURES:-$target/figures-by-block-size.jsonl}"
mkdir -p "$(dirname "$figures")"
# The program itself runs, not cargo: what is edited meanwhile does not get in.
program="$(cargo bench -q -p strongroom-benches --bench workloads --no-run --message-format=json |
    sed -n 's/.*"executable":"\([^"]*workloads[^"]*\)".*/\1/p' | tail -1)"
load="$(cut -d' ' -f1 /proc/loadavg 2>/dev/null || echo '?')"
rm -f "$figures"
"$program" --decision --rounds "${ROUNDS:-3}" --json "$figures" ${DIR:+--dir "$DIR"}
note="$(date -u +%Y-%m-%d), $(nproc) cores, $(rustc --version), commit $(git rev-parse --short HEAD); load of the machine at the beginning: $load."
if ! awk -v load="$load" 'BEGIN { exit !(load + 0 < 0.5) }'; then
    note="**Noisy: the machine was doing other work.** $note"
fi
cargo run -q --release -p strongroom-benches --bin figures -- decision "$figures" "$note"
