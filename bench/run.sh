#!/bin/sh
# Speed beside the peers: `./run bench` lists the suites, `./run bench small [--json FILE]` runs one.
set -eu
cd "$(dirname "$0")/.."
[ $# -eq 0 ] || case $1 in -* | scaling) ;; kvstore) sh bench/peers.sh "${BUILD:-build}/bench-env" horovod ;; *) sh bench/peers.sh "${BUILD:-build}/bench-env" ;; esac
exec python3 bench/bench.py "$@"
