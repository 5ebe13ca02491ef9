#!/usr/bin/env bash
# Installs the Debian packages that the build needs, and with `test` those of the tests, when run as root; else says what
# to install. The tests run a real Kafka (Java, Maven), a real PostgreSQL and a real Prometheus.
# Prometheus is unpacked beside the build and not installed: its package would start a server.
set -euo pipefail
packages=(build-essential cmake pkg-config libssl-dev zlib1g-dev python3-venv postgresql-client)
tools="${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/kirolinter/target}/tools"
if [ "${1:-}" = test ]; then
  packages+=(postgresql)
  command -v java >/dev/null || packages+=(openjdk-17-jre-headless)
  command -v mvn >/dev/null || packages+=(maven)
fi
updated=
update() {
  [ -n "$updated" ] || [ "$(id -u)" -ne 0 ] || apt-get update -qq
  updated=1
}

install_packages() {
  local missing=()
  for package in "${packages[@]}"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
  done
  [ ${#missing[@]} -eq 0 ] && return
  if [ "$(id -u)" -ne 0 ]; then
    echo "Please install: sudo apt-get install ${missing[*]}" >&2
    exit 1
  fi
  export DEBIAN_FRONTEND=noninteractive
  update
  apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

unpack_prometheus() {
  command -v prometheus >/dev/null && command -v promtool >/dev/null && return
  [ -x "$tools/prometheus/usr/bin/prometheus" ] && return
  local work
  mkdir -p "$tools"
  work=$(mktemp -d "$tools/new.XXXXXX")
  update
  if ! (cd "$work" && apt-get download -qq prometheus 2>"$work/log"); then
    cat "$work/log" >&2
    echo "Please install: sudo apt-get install prometheus (or run: sudo apt-get update)" >&2
    exit 1
  fi
  dpkg-deb -x "$work"/prometheus_*.deb "$work/prometheus"
  # Moved at once, so that a run that was broken off leaves no half of it.
  mv "$work/prometheus" "$tools/prometheus"
  rm -rf "$work"
}

command -v cargo >/dev/null || { echo "A Rust toolchain is needed (1.95 or newer): see https://rustup.rs" >&2; exit 1; }
install_packages
[ "${1:-}" != test ] || unpack_prometheus
