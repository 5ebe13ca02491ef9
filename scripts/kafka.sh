#!/bin/bash
# Runs Apache Kafka on loopback for tests. Prints the brokers' addresses on the first line of stdout when they are ready, and
# stops when stdin closes. The jars are fetched by Maven once (scripts/kafka/pom.xml says which).
# KAFKA_NODES: how many brokers (1); with three a topic has three replicas, and two of them must have a record.
# KAFKA_PORT: the port of the first; KAFKA_DIR: keeps what the brokers hold, so that they can go away and come back.
# The id of broker N's process is in KAFKA_DIR/N/pid.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
version=$(sed -n 's|.*<kafka.version>\(.*\)</kafka.version>.*|\1|p' "$here/kafka/pom.xml")
jars=${XDG_CACHE_HOME:-$HOME/.cache}/kirolinter/kafka/$version
nodes=${KAFKA_NODES:-1}

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
brokers=()
stop() {
    trap - EXIT INT TERM
    [ ${#brokers[@]} -eq 0 ] || kill -9 "${brokers[@]}" 2>/dev/null || true
    [ -n "${KAFKA_DIR:-}" ] || rm -rf "$work"
}
trap stop EXIT
trap 'exit 0' INT TERM

ports=() controls=() voters=
for node in $(seq "$nodes"); do
    ports[node]=$(free_port)
    controls[node]=$(free_port)
    voters+="${voters:+,}$node@127.0.0.1:${controls[node]}"
done
ports[1]=${KAFKA_PORT:-${ports[1]}}

configure() { # node
    mkdir -p "$work/$1"
    cat >"$work/$1/server.properties" <<PROPERTIES
process.roles=broker,controller
node.id=$1
controller.quorum.voters=$voters
listeners=PLAINTEXT://127.0.0.1:${ports[$1]},CONTROLLER://127.0.0.1:${controls[$1]}
advertised.listeners=PLAINTEXT://127.0.0.1:${ports[$1]}
controller.listener.names=CONTROLLER
log.dirs=$work/$1/data
auto.create.topics.enable=false
default.replication.factor=$nodes
min.insync.replicas=$(( (nodes + 1) / 2 ))
offsets.topic.num.partitions=1
offsets.topic.replication.factor=$nodes
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=$nodes
transaction.state.log.min.isr=$(( (nodes + 1) / 2 ))
group.initial.rebalance.delay.ms=0
num.network.threads=2
num.io.threads=2
log.cleaner.dedupe.buffer.size=4194304
log.retention.check.interval.ms=1000
PROPERTIES
}

cluster=$(head -c 16 /dev/urandom | base64 | tr '+/' 'AB' | cut -c1-22)
java=(java -Xmx384m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -cp "$jars/*")
for node in $(seq "$nodes"); do
    configure "$node"
    [ -e "$work/$node/data/meta.properties" ] \
        || "${java[@]}" kafka.tools.StorageTool format -t "$cluster" -c "$work/$node/server.properties" >"$work/$node/format.log" 2>&1 \
        || { cat "$work/$node/format.log" >&2; fail "the storage cannot be formatted"; }
done
for node in $(seq "$nodes"); do
    "${java[@]}" kafka.Kafka "$work/$node/server.properties" >"$work/$node/broker.log" 2>&1 </dev/null &
    brokers+=($!)
    echo $! >"$work/$node/pid"
    # Its end is no news.
    disown $!
done

addresses=
for node in $(seq "$nodes"); do
    ready=
    for _ in $(seq 1200); do
        kill -0 "$(cat "$work/$node/pid")" 2>/dev/null || { cat "$work/$node/broker.log" >&2; fail "broker $node ended"; }
        if (exec 3<>"/dev/tcp/127.0.0.1/${ports[node]}") 2>/dev/null; then ready=yes; break; fi
        sleep 0.1
    done
    [ "$ready" = yes ] || { cat "$work/$node/broker.log" >&2; fail "broker $node did not open its port in 120 s"; }
    addresses+="${addresses:+,}127.0.0.1:${ports[node]}"
done
echo "$addresses"

# Until stdin closes.
while read -r _; do :; done
