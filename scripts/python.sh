#!/bin/bash
# Prints the path of a Python that has pyarrow; makes a virtual environment for it once.
set -euo pipefail

venv=${XDG_CACHE_HOME:-$HOME/.cache}/kirolinter/venv
python=$venv/bin/python

fail() { echo "python.sh: $*" >&2; exit 1; }

command -v python3 >/dev/null || fail "python3 is not installed (see scripts/setup-debian.sh)"
mkdir -p "$(dirname "$venv")"
exec 9>"$venv.lock"
flock 9
if ! "$python" -c 'import pyarrow' 2>/dev/null; then
    python3 -m venv "$venv" >&2 || fail "python3-venv is not installed (see scripts/setup-debian.sh)"
    "$python" -m pip install --quiet pyarrow >&2 || fail "pip cannot install pyarrow"
fi
echo "$python"
