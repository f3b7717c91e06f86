#!/usr/bin/env bash
# Fuzzes each target for some seconds: fuzz/run.sh SECONDS [TARGET…]. Fails on the first finding. For 0 seconds the targets are
# built and not run.
#
# FUZZ_SANITIZER=none does without nightly's sanitizers: our own code is safe Rust, so that a sanitizer only watches the
# dependencies. FUZZ_CODEGEN_UNITS=1 makes faster targets, and takes longer to make them than short runs last.
set -euo pipefail

cd "$(dirname "$0")"
seconds="${1:?usage: fuzz/run.sh SECONDS [TARGET…]}"
shift
export CC="${CC:-gcc}" CXX="${CXX:-g++}"

if ! command -v cargo-fuzz >/dev/null; then
    cargo install cargo-fuzz --locked
fi
if cargo +nightly --version >/dev/null 2>&1; then
    fuzz=(cargo +nightly fuzz)
else
    export RUSTC_BOOTSTRAP=1
    fuzz=(cargo fuzz)
fi
sanitizer="${FUZZ_SANITIZER:-address}"

targets=("$@")
if [ "${#targets[@]}" -eq 0 ]; then
    mapfile -t targets < <("${fuzz[@]}" list --fuzz-dir .)
fi
build=(--fuzz-dir . --sanitizer "$sanitizer" --codegen-units "${FUZZ_CODEGEN_UNITS:-16}")
"${fuzz[@]}" build "${build[@]}"
if [ "$seconds" -eq 0 ]; then
    exit
fi
# As many at once as there are cores: each keeps one busy, and one after the other they would take twice as long.
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
running=0
for target in "${targets[@]}"; do
    if [ "$running" -ge "$(nproc)" ]; then
        wait -n
        running=$((running - 1))
    fi
    echo "--- $target, $seconds s"
    "${fuzz[@]}" run "${build[@]}" "$target" -- \
        "-max_total_time=$seconds" -max_len=16384 -print_final_stats=1 -verbosity=0 &
    running=$((running + 1))
done
while [ "$running" -gt 0 ]; do
    wait -n
    running=$((running - 1))
done
