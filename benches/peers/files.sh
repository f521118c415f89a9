#!/bin/sh
# The files of this crate that a request crosses, with the instructions spent in each, by callgrind: (those of
# 2,500 requests - those of 500) / 2,000, where that is at least one. What is inlined counts where it is written.
# Started by `peers files [hit|miss|post] [candidate]`, which says in PEERS where it is itself.
# Needs valgrind.
peers=${PEERS:?}
kind=hit
case ${1:-} in hit | miss | post) kind=$1 && shift ;; esac
candidate=${1:-tower-readthrough}
source=$(cd "$(dirname "$0")/../../src" && pwd)
scratch=$(mktemp -d)
# Lines `file instructions`. After `calls=` follows the cost of the callee, which counts there.
count() {
  valgrind -q --tool=callgrind --dump-line=yes --compress-strings=no --compress-pos=no \
    --callgrind-out-file="$scratch/$1" "$peers" one --kind "$kind" --cand "$candidate" --ops "$1" --key-rules 1 \
    >/dev/null 2>&1 || exit 1
  awk -v start="$source/" '
    /^f[lie]=/ { file = substr($0, 4); next }
    /^calls=/ { getline; next }
    /^[0-9]/ && index(file, start) == 1 { sum[substr(file, length(start) + 1)] += $2 }
    END { for (file in sum) print file, sum[file] }' "$scratch/$1"
}
count 500 >"$scratch/few"
count 2500 >"$scratch/many"
echo "| file | instructions per $kind |"
echo "|---|--:|"
awk 'NR == FNR { few[$1] = $2; next } { each = int(($2 - few[$1]) / 2000) } each >= 1 { print $1, each }' \
  "$scratch/few" "$scratch/many" | sort -k2 -rn | awk '{ print "| `src/" $1 "` | " $2 " |" }'
rm -r "$scratch"
