#!/bin/bash
# Runs one PostgreSQL on loopback for tests. Prints its URL on the first line of stdout when it is ready, and stops when
# stdin closes. The lines `stop` and `start` on stdin take it away and bring it back with what it had; each is said again when it is done. PostgreSQL refuses to run as root: then it runs as `postgres`, else as `nobody`.
set -euo pipefail

fail() { echo "postgres.sh: $*" >&2; exit 1; }

bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -1 || true)
[ -n "$bin" ] || bin=$(dirname "$(command -v initdb || echo /nowhere/initdb)")
[ -x "$bin/initdb" ] && [ -x "$bin/postgres" ] || fail "PostgreSQL is not installed (scripts/setup.sh test installs it)"

as=()
work=$(mktemp -d)
if [ "$(id -u)" -eq 0 ]; then
    user=$(id -un postgres 2>/dev/null || echo nobody)
    as=(setpriv "--reuid=$user" "--regid=$(id -g "$user")" --clear-groups env HOME=/nonexistent LC_ALL=C)
    chown "$user" "$work"
fi
cd "$work"
server=
stop() {
    trap - EXIT INT TERM
    if [ -n "$server" ]; then
        kill -QUIT "$server" 2>/dev/null || true
        wait "$server" 2>/dev/null || true
    fi
    rm -rf "$work"
}
trap stop EXIT
trap 'exit 0' INT TERM

"${as[@]}" "$bin/initdb" -D "$work/data" -U kiro -A trust -E UTF8 --locale=C --no-sync >"$work/initdb.log" 2>&1 \
    || { cat "$work/initdb.log" >&2; fail "the database cannot be made"; }

start() { # PORT
    "${as[@]}" "$bin/postgres" -D "$work/data" -p "$1" -c listen_addresses=127.0.0.1 -c unix_socket_directories= \
        -c fsync=off -c shared_buffers=16MB >"$work/server.log" 2>&1 </dev/null &
    server=$!
    for _ in $(seq 300); do
        kill -0 "$server" 2>/dev/null || return 1
        "$bin/pg_isready" -q -h 127.0.0.1 -p "$1" && return
        sleep 0.1
    done
    return 1
}

# The kernel chooses the port; between the choice and the start another may take it, so that it is tried again.
for _ in 1 2 3; do
    port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    start "$port" || continue
    echo "postgres://kiro@127.0.0.1:$port/postgres"
    while read -r order; do
        case $order in
            stop)
                kill -INT "$server"
                wait "$server" || true
                server=
                ;;
            start) start "$port" || fail "PostgreSQL did not start again" ;;
        esac
        echo "$order"
    done
    exit 0
done
cat "$work/server.log" >&2
fail "PostgreSQL did not start"
