#!/usr/bin/env bash
# The long runs: scripts/soak.sh [WHAT...], all of them without WHAT. Each prints its figures, and they are kept in
# target/soak/WHAT.log. SOAK_COUNT and SOAK_MINUTES change how often, how much and for how long; they fit one WHAT.
#   kills       members of ingest killed on Kafka while four write          1,000 kills, 5 million rows at least
#   embedded    the server killed, on its own log and on Kafka              for 60 minutes each
#   outage      the log away again and again, with a spill and without     for 60 minutes each
#   members     members that join and leave; zombies of ingest and process  600 changes, 100 zombies
#   topology    every role, each process killed, paused, added, removed     100 passes
#   power       power cuts                                                  200
#   disk        disks that are full, broken, closed                         50
#   poison      one record in a hundred is poison                           1 million records
#   memory      a backlog and a slow store                                  2 GiB, then 120 minutes
#   simulation  simulated worlds                                            50,000 seeds
#   store       commits to a store that fails in every way                  50,000
#   upkeep      writers, keepers and readers of old versions                for 60 minutes
#   backfill    a year of history beside what happens now                   1 million runs
#   fuzz        every parser                                                30 minutes each
set -euo pipefail
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target}
mkdir -p "$target/soak"

# The whole workspace is selected, so that dependencies keep the features that they were built with.
tests() { # FILTER TARGET...
  local filter=$1
  shift
  ${CARGO:-cargo} test --profile quick --locked --workspace "$@" "$filter" -- --nocapture --test-threads=1
}

run() {
  case $1 in
    kills | members | topology | power | disk | poison | memory) SOAK=1 tests "faults::$1" --test end_to_end ;;
    embedded) SOAK_MINUTES=${SOAK_MINUTES:-60} tests survives_ten_kills --test end_to_end ;;
    outage) SOAK_MINUTES=${SOAK_MINUTES:-60} tests outage:: --test end_to_end ;;
    simulation) SOAK_COUNT=${SOAK_COUNT:-50000} tests whatever_dies --lib ;;
    store) SOAK_COUNT=${SOAK_COUNT:-50000} tests hundreds_of_commits --lib ;;
    upkeep) KIRO_UPKEEP_SECONDS=$((${SOAK_MINUTES:-60} * 60)) tests writers_keepers --lib ;;
    backfill) BACKFILL_RUNS=${SOAK_COUNT:-1000000} tests backfill:: --test end_to_end ;;
    fuzz) FUZZ_SECONDS=${FUZZ_SECONDS:-1800} fuzz/run.sh ;;
    *) echo "soak.sh: there is no long run $1" >&2; exit 2 ;;
  esac
}

[ $# -gt 0 ] || set -- kills embedded outage members topology power disk poison memory simulation store upkeep backfill fuzz
failed=()
for what in "$@"; do
  echo "== $what"
  if (run "$what") 2>&1 | tee "$target/soak/$what.log"; then echo "== $what held"; else failed+=("$what"); fi
done
[ ${#failed[@]} -eq 0 ] || { echo "did not hold: ${failed[*]}" >&2; exit 1; }
