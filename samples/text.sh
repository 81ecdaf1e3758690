#!/bin/sh
# Writes the King James Bible, one verse a line without its number, from Debian's bible-kjv and bible-kjv-text:
#   sh samples/text.sh [build/bible.txt]
set -eu
out=${1:-build/bible.txt}
[ ! -s "$out" ] || exit 0
if ! command -v bible >/dev/null 2>&1; then
    echo "text.sh: the command bible is missing (Debian: apt-get install bible-kjv bible-kjv-text)" >&2
    exit 1
fi
mkdir -p "$(dirname "$out")"
# -f: each verse on one line, as "Ge1:1 In the beginning …"
bible -f 'Gen1:1-Rev22:21' </dev/null | sed 's/^[0-9]*[A-Za-z]*[0-9]*:[0-9]* //' >"$out.part"
mv "$out.part" "$out"
