#!/usr/bin/env bash
# Installs the tools of `make lint` once, beside the build's other caches, and prints their folder.
set -euo pipefail
root="${KIROLINTER_TOOLS:-${XDG_CACHE_HOME:-$HOME/.cache}/kirolinter/tools}"
for tool in cargo-deny@0.20.2 cargo-machete@0.9.2; do
  name="${tool%@*}"
  if ! "$root/bin/$name" --version 2>/dev/null | grep -qF "${tool#*@}"; then
    echo "installing $tool into $root" >&2
    CARGO_TARGET_DIR="$root/build" cargo install --quiet --locked --root "$root" "$tool" >&2
  fi
done
rm -rf "$root/build"
echo "$root/bin"
