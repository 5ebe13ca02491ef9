#!/bin/sh
# Installs what the build and the tests need on Debian and its kin. Run as root.
# libssl-dev, zlib1g-dev, pkg-config, make, g++: the Kafka client is compiled from C.
# postgresql: the tests of several processes (scripts/postgres.sh).
# maven, a JRE of at least 17: the tests run a real Kafka broker (scripts/kafka.sh).
set -eu
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
apt-get install -q -y --no-install-recommends \
    ca-certificates curl git make gcc g++ pkg-config cmake libssl-dev zlib1g-dev \
    openjdk-17-jdk-headless maven postgresql
