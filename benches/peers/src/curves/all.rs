//! Which pictures there are.

use super::Curve;

const STACK: &str = "tower-readthrough";
const STORE: &str = "tower-readthrough-store";
const BY_HAND: &str = "quick_cache+ttl+coalesce";
const FLOOR: &str = "floor-service";
const MAP: &str = "floor-arc-str";

const HIT: Curve = Curve {
    name: "",
    title: "",
    x: "",
    y: "ns per hit",
    command: "hit --rounds 9",
    option: "",
    values: &[],
    key: "ns",
    candidates: &[FLOOR, MAP, BY_HAND, STORE, STACK],
    apart: false,
    log_y: false,
};

const MISS: Curve =
    Curve { y: "ns per miss, eviction included", command: "miss --rounds 9 --ops 2000", ..HIT };

const STAMPEDE: Curve = Curve {
    command: "stampede --rounds 3",
    option: "callers",
    x: "callers of one cold key",
    values: &[100, 300, 1000, 3000, 10_000, 30_000, 100_000],
    candidates: &[BY_HAND, "tower-http-cache", "hitbox-tower-bincode", STACK],
    ..HIT
};

const POWERS_OF_2: &[u64] = &[1, 2, 4, 8, 16, 32, 64];
const SIZES: &[u64] = &[100, 1000, 10_000, 100_000, 1_000_000, 10_000_000];

pub(super) const CURVES: &[Curve] = &[
    Curve {
        name: "hit-entries",
        title: "A hit against the entries stored",
        x: "entries of 16 bytes and 2 fields, all asked for equally often",
        // Small ones, so that many fit into memory.
        command: "hit --rounds 9 --body 16 --fields 2",
        option: "keys",
        values: &[1000, 10_000, 100_000, 1_000_000, 10_000_000],
        candidates: &[MAP, BY_HAND, STORE, STACK],
        apart: true,
        ..HIT
    },
    Curve {
        name: "hit-fields",
        title: "A hit against the fields of the answer",
        x: "fields of the answer",
        option: "fields",
        values: POWERS_OF_2,
        ..HIT
    },
    Curve {
        name: "hit-body",
        title: "A hit against the size of the body",
        x: "bytes",
        option: "body",
        values: SIZES,
        ..HIT
    },
    Curve {
        name: "hit-variants",
        title: "A hit against the variants of a key",
        x: "variants by Vary, all asked for equally often",
        option: "variants",
        // No more are kept of one key.
        values: &[1, 2, 4, 8, 16, 32],
        candidates: &[STORE, STACK],
        ..HIT
    },
    Curve {
        name: "hit-purges",
        title: "A hit right after purges",
        x: "purges of other tags just before, 100,000 keys asked for equally often",
        command: "hit --rounds 5 --keys 100000",
        option: "purges",
        values: &[1, 10, 100, 1000, 10_000],
        candidates: &[STORE, STACK],
        ..HIT
    },
    Curve {
        name: "hit-rules",
        title: "A hit against the key rules",
        x: "rules whose paths begin alike, the last one is for the request",
        option: "key-rules",
        values: &[1, 3, 10, 30, 100, 300, 1000],
        candidates: &[STACK, "tower-readthrough-rules"],
        ..HIT
    },
    Curve {
        name: "hit-threads",
        title: "A hit of one hot key against threads",
        x: "threads; those beyond the number of cores take turns",
        y: "CPU ns per hit and thread",
        command: "mt --rounds 15",
        option: "threads",
        values: &[1, 2, 4, 8],
        ..HIT
    },
    Curve {
        name: "miss-entries",
        title: "A miss against the entries stored",
        x: "room for so many entries, all taken",
        command: "miss --rounds 9 --ops 2000 --body 64",
        option: "capacity",
        values: &[1000, 10_000, 100_000, 1_000_000],
        candidates: &[BY_HAND, STORE, STACK],
        apart: true,
        ..MISS
    },
    Curve {
        name: "miss-fields",
        title: "A miss against the fields of the answer",
        x: "fields of the answer",
        option: "fields",
        values: POWERS_OF_2,
        candidates: &[BY_HAND, STORE, STACK],
        ..MISS
    },
    Curve {
        name: "miss-body",
        title: "A miss against the size of the body",
        x: "bytes",
        command: "miss --rounds 9 --ops 500 --capacity 500",
        option: "body",
        values: &[100, 1000, 10_000, 100_000, 1_000_000],
        candidates: &[BY_HAND, STORE, STACK],
        ..MISS
    },
    Curve {
        name: "miss-variants",
        title: "A miss against the variants of a key",
        x: "variants that each key ends up with",
        option: "variants",
        values: POWERS_OF_2,
        candidates: &[STORE, STACK],
        ..MISS
    },
    Curve {
        name: "miss-purges",
        title: "A miss right after purges",
        x: "purges of other tags just before",
        command: "miss --rounds 5 --ops 2000",
        option: "purges",
        values: &[1, 10, 100, 1000, 10_000],
        candidates: &[STORE, STACK],
        ..MISS
    },
    Curve {
        name: "miss-rules",
        title: "A miss against the key rules",
        x: "rules whose paths begin alike, the last one is for the request",
        option: "key-rules",
        values: &[1, 3, 10, 30, 100, 300, 1000],
        candidates: &[STACK, "tower-readthrough-rules"],
        ..MISS
    },
    Curve {
        name: "miss-threads",
        title: "A miss against threads",
        x: "threads",
        y: "CPU ns per miss, all threads",
        option: "threads",
        values: &[1, 2, 4, 8],
        candidates: &[BY_HAND, STORE, STACK],
        ..MISS
    },
    Curve {
        name: "memory-entries",
        title: "Memory against entries of 100 bytes and 8 fields",
        x: "entries",
        y: "bytes of RSS per entry",
        command: "mem",
        option: "n",
        values: &[10_000, 30_000, 100_000, 300_000, 1_000_000],
        key: "rss_bytes",
        candidates: &[BY_HAND, "tower-http-cache", "hitbox-tower-bincode", STACK],
        ..HIT
    },
    Curve {
        name: "stampede-wall",
        title: "A stampede: time until all have their answer, origin 50 ms",
        y: "ms",
        key: "wall_ms",
        log_y: true,
        ..STAMPEDE
    },
    Curve {
        name: "stampede-memory",
        title: "A stampede: memory while all wait, 1 KiB",
        y: "MiB of heap at the peak",
        // To make so many callers takes longer than 50 ms.
        command: "stampede --rounds 3 --delay-ms 1000",
        key: "peak_heap_mib",
        log_y: true,
        ..STAMPEDE
    },
];
