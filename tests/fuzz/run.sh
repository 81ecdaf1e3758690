#!/bin/sh
# run.sh FUZZER CORPUS: the fuzzer for $FUZZ_SECONDS (20) from the files of CORPUS. What it finds is left in the current folder as crash-….
set -eu
fuzzer=$1 seeds=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/new" "$work/seeds"
n=0
[ ! -d "$seeds" ] || find "$seeds" -type f ! -name '*.py' -size -64k | sort | while read -r f; do
    n=$((n + 1))
    cp "$f" "$work/seeds/$n-$(basename "$f")"
done
"$fuzzer" -max_total_time="${FUZZ_SECONDS:-20}" -timeout=20 -rss_limit_mb=2560 -max_len=16384 -print_final_stats=1 -verbosity=0 "$work/new" "$work/seeds"
