#!/bin/sh
# `./run demo`: the way from samples/digits.mxl to a trained network in a C program of one's own.
set -eu
build=${1:-build}
mxcc=$build/mxcc
out=$build/demo
cc=${CC:-cc}
rm -rf "$out"
mkdir -p "$out"
now() { date +%s; }
began=$(now)

step() {
    printf '\n\033[1m%s\033[0m\n' "$1" | if [ -t 1 ]; then cat; else sed 's/\x1b\[[0-9;]*m//g'; fi
    printf '    %s\n' "$2"
}

step 'Compile the model to a C program that trains it' "mxcc build samples/digits.mxl --cpu native --threads --main -o $out/digits"
"$mxcc" build samples/digits.mxl --cpu native --threads --main -o "$out/digits"
ls -l "$out/digits" | awk '{ printf "    a program of %d KiB\n", $5 / 1024 }'

step 'Train it' "$out/digits --out $out/digits-run"
"$out/digits" --data samples/digits.csv --out "$out/digits-run"

step 'The loss curve' "python3 samples/plot.py $out/digits-run/metrics.csv -o $out/loss.svg"
python3 samples/plot.py "$out/digits-run/metrics.csv" -o "$out/loss.svg"

step 'The trained network in a C program of your own' "mxcc samples/digits.mxl -o $out/digits.c; $cc samples/digits_predict.c $out/digits.c"
"$mxcc" samples/digits.mxl -o "$out/digits.c" --no-runtime
"$cc" -std=c99 -O2 -I"$out" samples/digits_predict.c "$out/digits.c" -lm -o "$out/predict"
"$out/predict" "$out/digits-run/checkpoint.safetensors" samples/digits.csv 12 345 1777

accuracy=$("$out/digits" evaluate --json --data samples/digits.csv --out "$out/digits-run" | sed 's/.*"accuracy":\([0-9.]*\).*/\1/')
printf '\nAccuracy on digits it has not seen: %.2f%%, after %d seconds in all.\n' "$accuracy" $(($(now) - began))
awk "BEGIN { exit !($accuracy > 98) }" || {
    echo "demo: expected above 98%" >&2
    exit 1
}

cat <<TEXT

What to try next
    $out/digits train --epochs 40 --seed 1 --out $out/again    train anew; Ctrl-C stops, --resume goes on
    $mxcc report samples/digits.mxl                 memory, its lower bound, FLOPs, copies
    $mxcc run samples/digits.mxl --epochs 1         the same without a C compiler
    less $out/digits.c $out/digits.h                the generated C
    change samples/digits.mxl (say, its channels) and run ./run demo again
    docs/language.md is the language, samples/ has larger models
TEXT
