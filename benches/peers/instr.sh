#!/bin/sh
# Instructions per request, by callgrind: (those of 2,500 requests - those of 500) / 2,000.
# Started by `peers instr [hit|miss|post] [--key-rules N] [candidate ...]`, which says in PEERS where it is
# itself.
# Needs valgrind.
peers=${PEERS:?}
kind=hit
case ${1:-} in hit | miss | post) kind=$1 && shift ;; esac
rules=1
case ${1:-} in --key-rules) rules=$2 && shift 2 ;; esac
scratch=$(mktemp -d)
count() {
  valgrind --tool=callgrind --callgrind-out-file="$scratch/out" "$peers" one --kind "$kind" --cand "$1" --ops "$2" \
    --key-rules "$rules" 2>&1 |
    sed -n 's/.*Collected : \([0-9]*\).*/\1/p'
}
echo "| candidate | instructions per $kind |"
echo "|---|--:|"
[ $# -gt 0 ] || set -- noop floor-service floor-arc-str quick_cache+ttl+coalesce tower-readthrough tower-readthrough-store
for candidate; do
  few=$(count "$candidate" 500)
  many=$(count "$candidate" 2500)
  echo "| $candidate | $(((many - few) / 2000)) |"
done
rm -r "$scratch"
