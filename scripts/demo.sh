#!/usr/bin/env bash
# The product on real history: builds, starts, imports, asks, judges, and leaves the server up.
# DATA=file.csv MAPPING=file.yaml takes a file of yours. NO_WAIT=1 stops at the end. KEEP=1 keeps the data of the run before.
# DEMO_DIR, HTTP_PORT and PG_PORT say where; ports that are taken give way to free ones.
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/kirolinter/target}"
dir="${DEMO_DIR:-kirolinter-demo-data}"
demo=deploy/demo
started=$SECONDS

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
fail() { echo "demo: $*" >&2; exit 1; }
# The wall clock in milliseconds.
now() { date +%s%3N; }
free_port() {
  python3 - "$1" <<'PY'
import socket, sys
for port in (int(sys.argv[1]), 0):
    with socket.socket() as door:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            door.bind(("127.0.0.1", port))
        except OSError:
            continue
        print(door.getsockname()[1])
        break
PY
}

if [ -n "${DATA:-}${MAPPING:-}" ]; then
  [ -r "${DATA:-}" ] || fail "DATA=${DATA:-} cannot be read; give both: make demo DATA=file.csv MAPPING=file.yaml"
  [ -r "${MAPPING:-}" ] || fail "MAPPING=${MAPPING:-} cannot be read; deploy/demo/*.mapping.yaml are examples"
fi
if [ -z "${KEEP:-}" ] && [ -e "$dir" ]; then
  [ -e "$dir/.demo" ] || fail "$dir is there and no demo made it; set DEMO_DIR to another folder"
  rm -rf "$dir"
fi
mkdir -p "$dir"
touch "$dir/.demo"
echo '*' >"$dir/.gitignore"

say "Building (the first time takes some minutes)"
cargo build --profile quick --locked --workspace --bin kirolinterd --bin kirolinter
bin="$CARGO_TARGET_DIR/quick"
http="127.0.0.1:$(free_port "${HTTP_PORT:-8080}")"
pg="127.0.0.1:$(free_port "${PG_PORT:-5433}")"
export KIROLINTER_SERVER="http://$http"
unset KIROLINTER_TOKEN
kiro() { "$bin/kirolinter" --timeout 300 "$@"; }

say "Starting the server"
"$bin/kirolinterd" up --config $demo/kirolinter.yaml --data-dir "$dir/data" --http "$http" --pg "$pg" >"$dir/server.log" 2>&1 &
server=$!
stop() {
  trap - EXIT INT TERM
  kill -TERM "$server" 2>/dev/null || true
  wait "$server" 2>/dev/null || true
}
trap stop EXIT
trap 'stop; exit 130' INT
trap 'stop; exit 143' TERM
for _ in $(seq 600); do
  kill -0 "$server" 2>/dev/null || { tail -20 "$dir/server.log" >&2; fail "the server ended; its log is $dir/server.log"; }
  python3 $demo/ask.py ready "$KIROLINTER_SERVER" && break
  sleep 0.1
done
python3 $demo/ask.py ready "$KIROLINTER_SERVER" || fail "the server is not ready after a minute; its log is $dir/server.log"
echo "  ready at $KIROLINTER_SERVER; everything it keeps is in $dir/data"

if [ -n "${DATA:-}" ]; then
  files=("$DATA=$MAPPING")
else
  say "Moving the history to the present (hours and weekdays stay as they were)"
  python3 $demo/shift_history.py $demo/history "$dir/history"
  echo "  recorded in $dir/history/shift.json; where it comes from: $demo/SOURCES.md"
  files=()
  for file in "$dir"/history/*.csv; do
    name=$(basename "$file" .csv)
    files+=("$file=$demo/$name.mapping.yaml")
  done
fi

say "Importing"
begin=$(now)
for file in "${files[@]}"; do kiro import "${file%%=*}" --mapping "${file##*=}"; done
written=$(now)
python3 $demo/ask.py settle "$KIROLINTER_SERVER"
settled=$(now)
events=$(kiro --format csv query "select count(*) from pipeline_runs_events" | tail -1)
echo "  $events events of pipeline runs: in the log after $((written - begin)) ms, all of them in the tables after $((settled - begin)) ms"

ask() {
  say "$1"
  echo "  $2" | sed 's/^ *//; s/^/  /'
  local begin
  begin=$(now)
  kiro query "$2"
  echo "  $(($(now) - begin)) ms"
}
ask "1. How many runs has each project, and how many failed?" "select source, pipeline, count(*) as runs,
  count(*) filter (where outcome = 'failure') as failures, round(100.0 * count(*) filter (where outcome = 'failure')
  / nullif(count(*) filter (where outcome in ('success', 'failure')), 0), 1) as failed_percent, min(started_at) as first, max(started_at) as last
  from pipeline_runs group by source, pipeline order by runs desc limit 20"
ask "2. On which days do runs fail? (0 = Sunday, UTC)" "select extract(dow from started_at) as weekday, count(*) as runs,
  round(100.0 * avg(case when outcome = 'failure' then 1.0 else 0.0 end), 1) as failed_percent
  from pipeline_runs where outcome in ('success', 'failure') group by 1 order by 1"
ask "3. What were the longest rows of failures?" "with runs as (select source, pipeline, outcome, started_at,
  row_number() over (partition by source, pipeline order by started_at, run_id, attempt)
  - row_number() over (partition by source, pipeline, outcome order by started_at, run_id, attempt) as streak
  from pipeline_runs where outcome in ('success', 'failure'))
  select source, pipeline, count(*) as failures, min(started_at) as first, max(started_at) as last
  from runs where outcome = 'failure' group by source, pipeline, streak order by failures desc, first limit 8"
ask "4. What ran last?" "select source, pipeline, run_id, attempt, outcome, trigger, started_at
  from pipeline_runs order by started_at desc, run_id limit 10"
ask "5. How often did only trying again turn red into green?" "select n.source, n.pipeline, count(*) as attempts_after_a_failure,
  count(*) filter (where n.outcome = 'success') as turned_green
  from pipeline_runs n join pipeline_runs p on p.source = n.source and p.run_id = n.run_id and p.attempt = n.attempt - 1
  where p.outcome = 'failure' group by n.source, n.pipeline order by attempts_after_a_failure desc limit 10"
longest="duration_ms is not null"
[ -n "${DATA:-}" ] || longest="source = 'https://github.com/pulumi/pulumi' and outcome in ('success', 'failure')"
ask "6. How long do runs take, week by week?" "select date_trunc('week', finished_at) as week, count(*) as runs,
  round(median(duration_ms) / 60000.0, 1) as median_minutes, round(percentile_cont(0.95) within group (order by duration_ms) / 60000.0, 1) as p95_minutes
  from pipeline_runs where $longest group by 1 order by 1 desc limit 12"

runs=$(kiro --format csv query "select count(*) from pipeline_runs" | tail -1)
if [ "$runs" -gt 0 ]; then
  say "Training a model that predicts failures, and judging it on later runs that it has not seen (half a minute or so)"
  begin=$(now)
  kiro models evaluate >"$dir/model.json"
  python3 $demo/ask.py model "$dir/model.json"
  echo "  $(($(now) - begin)) ms; the whole report is $dir/model.json"

  source=https://github.com/SonarSource/sonarqube pipeline=travis change=()
  if [ -z "${DATA:-}" ]; then
    # The change to ask about: that of the newest run.
    while read -r pair; do change+=(-a "$pair"); done < <(python3 $demo/ask.py change "$dir/history/sonarqube.csv")
  fi
  if [ -n "${DATA:-}" ]; then
    busiest=$(kiro --format csv query "select source, pipeline from pipeline_runs group by source, pipeline order by count(*) desc, source limit 1" | tail -1)
    source=${busiest%,*} pipeline=${busiest##*,}
  fi
  say "How likely does the next run of $source fail, and why?"
  begin=$(now)
  kiro risk --source "$source" --pipeline "$pipeline" ${change[@]+"${change[@]}"}
  echo "  $(($(now) - begin)) ms"
  say "May it be deployed? (the gate of $demo/quality_gates.yaml)"
  begin=$(now)
  kiro gate --type pre-deploy -p "source=$source" -p "pipeline=$pipeline" --source "$source" --pipeline "$pipeline" ${change[@]+"${change[@]}"}
  echo "  $(($(now) - begin)) ms"
fi

say "Done in $((SECONDS - started)) s. Its doors:"
cat <<TEXT
  kirolinter       export KIROLINTER_SERVER=$KIROLINTER_SERVER
                   $bin/kirolinter query "select * from pipeline_health order by day desc limit 5"
  psql, Grafana    psql -h ${pg%:*} -p ${pg##*:} -U demo kirolinter
  HTTP             curl $KIROLINTER_SERVER/openapi.json      Prometheus: $KIROLINTER_SERVER/metrics
  lake             Delta tables in $dir/data/lake, for any Delta reader
  server's log     $dir/server.log
TEXT
if [ -n "${NO_WAIT:-}" ]; then
  exit 0
fi
echo
echo "The server is up. Ctrl-C stops it."
wait "$server"
