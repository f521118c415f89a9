//! General-purpose caches, called directly.

use std::num::NonZeroUsize;

use super::{Make, Sim};

/// A cache that is nothing but asked and told.
struct Plain<C> {
    cache: C,
    has: fn(&mut C, u64) -> bool,
    put: fn(&mut C, u64),
    held: fn(&C) -> Option<usize>,
}

impl<C> Sim for Plain<C> {
    fn access(&mut self, key: u64) -> bool {
        let hit = (self.has)(&mut self.cache, key);
        if !hit {
            (self.put)(&mut self.cache, key);
        }
        hit
    }

    fn held(&self) -> Option<usize> {
        (self.held)(&self.cache)
    }
}

/// `get` and `insert` are called the same everywhere, but are not of one trait.
macro_rules! plain {
    ($make:expr, $put:ident) => {
        plain!($make, $put, |_| None)
    };
    ($make:expr, $put:ident, $held:expr) => {
        Box::new(|_: &[u64], room: usize| {
            let make: fn(usize) -> _ = $make;
            Box::new(Plain {
                cache: make(room),
                has: |cache, key| cache.get(&key).is_some(),
                put: |cache, key| _ = cache.$put(key, ()),
                held: $held,
            }) as Box<dyn Sim>
        })
    };
}

fn moka_lru(room: usize) -> moka::sync::Cache<u64, ()> {
    let policy = moka::policy::EvictionPolicy::lru();
    moka::sync::Cache::builder().max_capacity(room as u64).eviction_policy(policy).build()
}

pub(super) fn all() -> Vec<(&'static str, Make)> {
    vec![
        ("quick_cache", plain!(quick_cache::sync::Cache::new, insert, |cache| Some(cache.len()))),
        ("quick_cache unsync", plain!(quick_cache::unsync::Cache::new, insert)),
        ("moka (W-TinyLFU)", plain!(|room| moka::sync::Cache::new(room as u64), insert)),
        ("moka (LRU policy)", plain!(moka_lru, insert)),
        ("mini-moka", plain!(|room| mini_moka::sync::Cache::new(room as u64), insert)),
        ("sieve-cache", plain!(|room| sieve_cache::SieveCache::new(room).expect("not zero"), insert)),
        ("lru", plain!(|room| lru::LruCache::new(NonZeroUsize::new(room).expect("not zero")), put)),
        ("schnellru", plain!(|room| schnellru::LruMap::new(schnellru::ByLength::new(room as u32)), insert)),
    ]
}
