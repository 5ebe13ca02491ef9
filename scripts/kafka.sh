#!/bin/bash
# Runs one Apache Kafka broker on loopback for tests. Prints its address on the first line of stdout when it is ready,
# and stops when stdin closes. The jars are fetched by Maven once (scripts/kafka/pom.xml says which).
# KAFKA_PORT: the port to listen at; KAFKA_DIR: keeps what the broker holds, so that it can go away and come back.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
version=$(sed -n 's|.*<kafka.version>\(.*\)</kafka.version>.*|\1|p' "$here/kafka/pom.xml")
jars=${XDG_CACHE_HOME:-$HOME/.cache}/kirolinter/kafka/$version

fail() { echo "kafka.sh: $*" >&2; exit 1; }

command -v java >/dev/null || fail "java is not installed (scripts/setup.sh test installs it)"
command -v python3 >/dev/null || command -v perl >/dev/null || fail "python3 or perl is needed to find free ports"

fetch() {
    exec 9>"${jars}.lock"
    flock 9
    [ -e "$jars/.complete" ] && return
    command -v mvn >/dev/null || fail "mvn is not installed (scripts/setup.sh test installs it)"
    mvn -B -q -f "$here/kafka/pom.xml" dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$jars" >&2 \
        || fail "Maven could not fetch Kafka $version"
    touch "$jars/.complete"
    exec 9>&-
}
mkdir -p "$(dirname "$jars")"
[ -e "$jars/.complete" ] || fetch

free_port() {
    if command -v python3 >/dev/null; then
        python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
    else
        perl -MIO::Socket::INET -e 'print IO::Socket::INET->new(Listen => 1, LocalAddr => "127.0.0.1")->sockport'
    fi
}

work=${KAFKA_DIR:-$(mktemp -d)}
mkdir -p "$work"
broker=
stop() {
    trap - EXIT INT TERM
    [ -n "$broker" ] && kill -9 "$broker" 2>/dev/null || true
    [ -n "${KAFKA_DIR:-}" ] || rm -rf "$work"
}
trap stop EXIT
trap 'exit 0' INT TERM

port=${KAFKA_PORT:-$(free_port)}
control=$(free_port)
cat >"$work/server.properties" <<PROPERTIES
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$control
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$control
advertised.listeners=PLAINTEXT://127.0.0.1:$port
controller.listener.names=CONTROLLER
log.dirs=$work/data
auto.create.topics.enable=false
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
num.network.threads=2
num.io.threads=2
log.cleaner.dedupe.buffer.size=4194304
log.retention.check.interval.ms=1000
PROPERTIES

run() { java -Xmx384m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -cp "$jars/*" "$@"; }
[ -e "$work/data/meta.properties" ] || run kafka.tools.StorageTool format -t "$(head -c 16 /dev/urandom | base64 | tr '+/' 'AB' | cut -c1-22)" \
    -c "$work/server.properties" >"$work/format.log" 2>&1 || { cat "$work/format.log" >&2; fail "the storage cannot be formatted"; }
# Not through the function: the process to stop is the broker itself.
java -Xmx384m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -cp "$jars/*" kafka.Kafka "$work/server.properties" \
    >"$work/broker.log" 2>&1 </dev/null &
broker=$!

for _ in $(seq 600); do
    kill -0 "$broker" 2>/dev/null || { cat "$work/broker.log" >&2; fail "the broker ended"; }
    if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then ready=yes; break; fi
    sleep 0.1
done
[ "${ready:-}" = yes ] || { cat "$work/broker.log" >&2; fail "the broker did not open its port in 60 s"; }
echo "127.0.0.1:$port"

# Until stdin closes.
while read -r _; do :; done
