#!/usr/bin/env bash
# Makes a golden data directory with the programs of a folder: tests/golden/make.sh FOLDER_OF_PROGRAMS NAME
# Writes NAME/data.tar.gz (embedded log, lake, control store, quarantine, model) and NAME/answers.json (questions with their rows).
set -euo pipefail
bin=$(realpath "$1")
out=$(realpath "$(dirname "$0")")/$2
work=$(mktemp -d)
mkdir -p "$out"
cd "$work"
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null || true; rm -rf "$work"' EXIT

printf 'a secret of the webhook' >secret
cat >gates.yaml <<'YAML'
version: 1
gates:
  - name: runs
    type: pre-deploy
    criteria:
      - {name: runs, sql: "SELECT count(*) AS value, count(*) AS n FROM pipeline_runs", pass: [">= 1"], min_samples: 1}
YAML
cat >kirolinter.yaml <<YAML
auth: {loopback_open: true}
lake: {commit_interval_ms: 200}
gates_file: $work/gates.yaml
sources: {github: {secret_file: $work/secret}}
log: {partitions: 2}
YAML

read -r http pg < <(python3 - <<'PY'
import socket
doors = [socket.socket() for _ in range(2)]
for door in doors:
    door.bind(("127.0.0.1", 0))
print(*(door.getsockname()[1] for door in doors))
PY
)
export KIROLINTER_SERVER=http://127.0.0.1:$http
ask() { "$bin/kirolinter" --format json "$@"; }
up() {
  "$bin/kirolinterd" up --config kirolinter.yaml --data-dir data --http "127.0.0.1:$http" --pg "127.0.0.1:$pg" 2>>server.log &
  server=$!
  for _ in $(seq 300); do
    curl -fsS "$KIROLINTER_SERVER/readyz" >/dev/null 2>&1 && return
    sleep 0.1
  done
  cat server.log >&2
  exit 1
}
down() {
  kill -TERM "$server"
  wait "$server"
  server=
}

up
python3 - >events.ndjson <<'PY'
import json
def say(subject, transition, subject_id, time, fields, **more):
    print(json.dumps({"subject": subject, "transition": transition, "source": f"https://ci.example/acme/{'shop' if int(subject_id) % 3 else 'api'}",
                      "subject_id": str(subject_id), "time": time, "fields": fields, **more}))
for at in range(40):
    day, hour = 1 + at // 8, at % 8
    stamp = lambda minute: f"2026-03-{day:02}T{hour:02}:{minute:02}:00Z"
    run = {"pipeline": "build" if at % 2 else "deploy", "branch": "main", "commit_sha": f"{at:040x}", "actor": "ada"}
    say("pipeline_run", "started", at, stamp(1), run, known_at=stamp(1))
    say("pipeline_run", "finished", at, stamp(9), {**run, "outcome": "failure" if at % 7 == 3 else "success"}, known_at=stamp(9), attributes={"team": "é \"x\""})
    if at % 4 == 0:
        say("change", "merged", at, stamp(0), {"title": f"change {at}", "author": "grace"}, known_at=stamp(0))
say("pipeline_run", "started", 99, "2026-03-09T00:00:00Z", {"pipeline": "build"}, known_at="2026-03-09T00:00:00Z")
PY
split -n l/2 events.ndjson part.
ask events send part.aa --wait >/dev/null
ask gate --type=pre-deploy --idempotency-key one >/dev/null
ask risk --source https://ci.example/acme/shop >/dev/null
ask token create golden --role viewer >/dev/null
body='{"action":"completed","workflow_run":7}'
signature=$(printf '%s' "$body" | openssl dgst -sha256 -hmac "$(cat secret)" | sed 's/.* //')
curl -fsS "$KIROLINTER_SERVER/webhooks/github" -H 'content-type: application/json' -H 'x-github-event: workflow_run' \
  -H 'x-github-delivery: golden-1' -H "x-hub-signature-256: sha256=$signature" --data-binary "$body" >/dev/null
down
# A second life, so that there are commits and a log of two starts, and a killed process besides.
up
ask events send part.ab --wait >/dev/null
ask models evaluate >/dev/null
ask gate --type=pre-deploy >/dev/null
ask events send /dev/null --wait >/dev/null
python3 - "$bin/kirolinter" >"$out/answers.json" <<'PY'
import json, subprocess, sys
questions = [
    "SELECT source, pipeline, run_id, attempt, outcome, status, branch, commit_sha, actor, started_at, finished_at, duration_ms, attributes FROM pipeline_runs ORDER BY run_id, attempt",
    "SELECT count(*) AS n, count(DISTINCT event_id) AS ids, min(known_at) AS first, max(known_at) AS last FROM pipeline_runs_events",
    "SELECT tenant, source, change_id, title, author, merged_at, known_at FROM changes ORDER BY change_id",
    "SELECT source, pipeline, branch, day, runs, successes, failures, failure_ratio, duration_p50_ms FROM pipeline_health ORDER BY source, pipeline, branch, day",
    "SELECT source, pipeline, run_id, attempt, as_of, last, fr10, ew8, streak, known_runs FROM features ORDER BY source, pipeline, run_id, attempt",
    "SELECT tenant, source, decision_id, gate, gate_type, verdict, status, score, decision, actor, time FROM gate_decisions ORDER BY time",
    "SELECT source, deployment_id, pipeline, score, confidence, model_version, actor, time FROM risk_assessments ORDER BY time",
    "SELECT tenant, entry_id, actor, action, object, result, reason, time, recorded_at, _topic, _partition, _offset FROM audit_log ORDER BY _partition, _offset",
    "SELECT model_version, estimator, labels, is_served, reason FROM model_versions ORDER BY time",
    "SELECT reason, size_bytes, sha256, _topic, _partition, _offset FROM dead_letters ORDER BY _partition, _offset",
]
answers = []
for sql in questions:
    answer = json.loads(subprocess.run([sys.argv[1], "--format", "json", "query", sql], check=True, capture_output=True, text=True).stdout)
    assert answer["rows"], sql
    answers.append({"sql": sql, "rows": answer["rows"]})
json.dump(answers, sys.stdout, indent=1, ensure_ascii=False)
PY
kill -9 "$server"
wait "$server" || true
server=
tar -C "$work" --sort=name --owner=0 --group=0 --numeric-owner -cf - data | gzip -9n >"$out/data.tar.gz"
ls -l "$out"
