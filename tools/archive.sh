#!/bin/sh
# archive.sh NM OBJCOPY AR OUTPUT FOLDER OBJECT...: a static library in which names that are not of the interface (mxrt_…, mx_…) are called
# mxrt_internal_…. The objects of a static library see each other's names, and so do the programs that link it: without this, a model called
# `net` with a function `open` would meet the runtime's net_open.
set -eu
nm=$1 objcopy=$2 ar=$3 output=$4 folder=$5
shift 5
mkdir -p "$folder"
"$nm" -g --defined-only "$@" | awk 'NF == 3 && $3 !~ /^_*mx(rt)?_/ { print $3, "mxrt_internal_" $3 }' | sort -u >"$folder/names"
rm -f "$output" "$folder"/*.o
for object; do
    "$objcopy" --redefine-syms="$folder/names" "$object" "$folder/$(basename "$object")"
done
"$ar" rcs "$output" "$folder"/*.o
