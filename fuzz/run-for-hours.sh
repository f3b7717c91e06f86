#!/usr/bin/env bash
# Fuzzes every target for hours, as before a release: fuzz/run-for-hours.sh [HOURS_EACH] [TARGET…]. Default: 1 hour each.
#
# New inputs stay in fuzz/corpus (ignored by git); findings are left in fuzz/artifacts.
set -euo pipefail

hours="${1:-1}"
[ "$#" -eq 0 ] || shift
export FUZZ_CODEGEN_UNITS="${FUZZ_CODEGEN_UNITS:-1}"
exec "$(dirname "$0")/run.sh" "$((hours * 3600))" "$@"
