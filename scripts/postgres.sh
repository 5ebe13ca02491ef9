#!/bin/bash
# Runs one PostgreSQL on loopback for tests. Prints its URL on the first line of stdout when it is ready, and stops when
# stdin closes. PostgreSQL refuses to run as root: then it runs as `postgres`, else as `nobody`.
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

# The kernel chooses the port; between the choice and the start another may take it, so that it is tried again.
for _ in 1 2 3; do
    port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    "${as[@]}" "$bin/postgres" -D "$work/data" -p "$port" -c listen_addresses=127.0.0.1 -c unix_socket_directories= \
        -c fsync=off -c shared_buffers=16MB >"$work/server.log" 2>&1 </dev/null &
    server=$!
    for _ in $(seq 300); do
        kill -0 "$server" 2>/dev/null || break
        if "$bin/pg_isready" -q -h 127.0.0.1 -p "$port"; then
            echo "postgres://kiro@127.0.0.1:$port/postgres"
            # Until stdin closes.
            while read -r _; do :; done
            exit 0
        fi
        sleep 0.1
    done
done
cat "$work/server.log" >&2
fail "PostgreSQL did not start"
