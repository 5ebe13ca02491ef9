#!/usr/bin/env bash
# Runs fuzz targets, each for FUZZ_SECONDS, from the seeds in fuzz/corpus: fuzz/run.sh [TARGET…]
# FUZZ_CHANGED=COMMIT leaves out those whose parser, target and seeds are as they were at that commit.
# A stable toolchain suffices: the coverage passes are told to the compiler by hand, and the address sanitizer, which it has
# for nightly use alone, with RUSTC_BOOTSTRAP. FUZZ_SANITIZER= builds without it. `cargo fuzz` works on this folder as well.
# No input may take more than a second or 256 MiB.
set -euo pipefail
cd "$(dirname "$0")"
seconds=${FUZZ_SECONDS:-30}
host=$(rustc -vV | sed -n 's/^host: //p')
export CARGO_TARGET_DIR=${FUZZ_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/kirolinter/fuzz-target}
export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares -Cllvm-args=-simplifycfg-branch-fold-threshold=0 \
-Cdebug-assertions -Coverflow-checks"
sanitizer=${FUZZ_SANITIZER-address}
if [ -n "$sanitizer" ]; then
  export RUSTC_BOOTSTRAP=1 RUSTFLAGS="$RUSTFLAGS -Zsanitizer=$sanitizer" ASAN_OPTIONS="quarantine_size_mb=8:${ASAN_OPTIONS:-}"
fi
# Where the parser of a target lies, with what it is made of.
sources() {
  echo fuzz/src "fuzz/fuzz_targets/$1.rs" "fuzz/corpus/$1" schemas/src
  case $1 in
    webhook_signature) echo integrations/src ;;
    gitea_webhook) echo integrations/src/gitea integrations/src/gitea.rs integrations/src/github integrations/src/platform integrations/src/platform.rs integrations/src/reading.rs integrations/src/reading ;;
    *_webhook) echo "integrations/src/${1%_webhook}" "integrations/src/${1%_webhook}.rs" integrations/src/platform integrations/src/platform.rs integrations/src/reading.rs integrations/src/reading ;;
    *_report) echo integrations/analyzers/src ;;
    gate_file) echo orchestration/src ;;
    model_file) echo models/src ;;
    request_body) echo schemas/ports/src models/src ;;
    embedded_record | spill_segment) echo ingest/log/src ;;
    *) echo ingest/src/decode ingest/src/decode.rs ingest/src/mapping ingest/src/mapping.rs integrations/src ;;
  esac
}
is_changed() {
  local paths
  mapfile -t paths < <(sources "$1" | tr ' ' '\n')
  ! git -C .. diff --quiet "$FUZZ_CHANGED" -- "${paths[@]}" || [ -n "$(git -C .. status --porcelain -- "${paths[@]}")" ]
}
targets=("$@")
[ ${#targets[@]} -gt 0 ] || mapfile -t targets < <(basename -s .rs fuzz_targets/*.rs)
if [ -n "${FUZZ_CHANGED:-}" ]; then
  git -C .. rev-parse --quiet --verify "$FUZZ_CHANGED^{commit}" >/dev/null || { echo "FUZZ_CHANGED: $FUZZ_CHANGED is no commit" >&2; exit 2; }
  changed=()
  for target in "${targets[@]}"; do ! is_changed "$target" || changed+=("$target"); done
  [ ${#changed[@]} -gt 0 ] || { echo "no parser has changed since $FUZZ_CHANGED"; exit 0; }
  targets=("${changed[@]}")
fi
# With a target, build scripts and macros are not instrumented.
bins=()
for target in "${targets[@]}"; do bins+=(--bin "$target"); done
${CARGO:-cargo} build --locked --release --target "$host" "${bins[@]}"
failed=()
for target in "${targets[@]}"; do
  found="$CARGO_TARGET_DIR/corpus/$target"
  crashes="$CARGO_TARGET_DIR/crashes/$target"
  mkdir -p "$found" "$crashes"
  log="$CARGO_TARGET_DIR/$target.log"
  if "$CARGO_TARGET_DIR/$host/release/$target" -max_total_time="$seconds" -timeout=1 -rss_limit_mb=256 -max_len=65536 \
    -artifact_prefix="$crashes/" "$found" "corpus/$target" >"$log" 2>&1; then
    runs=$(sed -n 's/^Done \([0-9]*\) runs.*/\1/p' "$log" | tail -1)
    branches=$(grep -aoE ' cov: [0-9]+' "$log" | tail -1)
    echo "$target: ${runs:-?} runs,$branches, no finding"
  else
    failed+=("$target")
    echo "$target: FINDING" >&2
    grep -E "panicked|ERROR|Test unit written|SUMMARY" -A2 "$log" | head -12 >&2 || true
  fi
done
[ ${#failed[@]} -eq 0 ] || { echo "Fix what was found, and keep the input: mv the file into fuzz/corpus/TARGET" >&2; exit 1; }
