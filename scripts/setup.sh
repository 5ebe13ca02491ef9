#!/usr/bin/env bash
# Installs the Debian packages that the build and the tests need when run as root; else says what to install.
set -euo pipefail
packages=(build-essential cmake pkg-config libssl-dev zlib1g-dev python3-venv postgresql-client)
command -v cargo >/dev/null || { echo "A Rust toolchain is needed (1.95 or newer): see https://rustup.rs" >&2; exit 1; }
missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0
if [ "$(id -u)" -eq 0 ]; then
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
else
  echo "Please install: sudo apt-get install ${missing[*]}" >&2
  exit 1
fi
