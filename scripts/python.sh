#!/bin/bash
# Prints the path of a Python that has pyarrow and the packages that are named; makes a virtual environment for it once.
#
# usage: python.sh [PACKAGE...], such as: python.sh 'moto[server]'
set -euo pipefail

venv=${XDG_CACHE_HOME:-$HOME/.cache}/kirolinter/venv
python=$venv/bin/python

fail() { echo "python.sh: $*" >&2; exit 1; }

command -v python3 >/dev/null || fail "python3 is not installed (scripts/setup.sh test installs it)"
mkdir -p "$(dirname "$venv")"
exec 9>"$venv.lock"
flock 9
[ -x "$python" ] || python3 -m venv "$venv" >&2 || fail "python3-venv is not installed (scripts/setup.sh test installs it)"
for package in pyarrow "$@"; do
    # What was installed leaves a note, so that nobody asks the registry twice.
    note=$venv/installed-${package//[^a-zA-Z0-9]/-}
    [ -e "$note" ] && continue
    "$python" -m pip install --quiet "$package" >&2 || fail "pip cannot install $package"
    touch "$note"
done
echo "$python"
