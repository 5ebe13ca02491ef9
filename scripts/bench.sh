#!/usr/bin/env bash
# Builds the programs, installs the peers and prints what the benchmarks find, as Markdown: scripts/bench.sh [PART…]
# BENCH_PROFILE: the profile of cargo (default bench). BENCH_EVENTS, BENCH_RATE, BENCH_WEBHOOKS, BENCH_SECONDS: how much.
set -euo pipefail
cd "$(dirname "$0")/.."
export BENCH_PROFILE=${BENCH_PROFILE:-bench}
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/kirolinter/target}"
${CARGO:-cargo} build --profile "$BENCH_PROFILE" --locked -p kiro-server -p kiro-cli -p kiro-benches --bins >&2
# The built-in profile of this name has no folder of its own.
folder=$BENCH_PROFILE
[ "$folder" = bench ] && folder=release
python=$(scripts/python.sh)
venv=${XDG_CACHE_HOME:-$HOME/.cache}/kirolinter/bench-venv
if ! cmp -s benches/peers/requirements.txt "$venv/installed"; then
  "$python" -m venv "$venv"
  "$venv/bin/python" -m pip install --quiet -r benches/peers/requirements.txt >&2
  cp benches/peers/requirements.txt "$venv/installed"
fi
export BENCH_PYTHON="$venv/bin/python"
exec "$CARGO_TARGET_DIR/$folder/kiro-bench" run "$@"
