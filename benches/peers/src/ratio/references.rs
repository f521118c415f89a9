//! Published algorithms, plainly: to compare crates with, not tuned for speed.

use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};

use super::{Make, Sim};

pub(super) fn all() -> Vec<(&'static str, Make)> {
    vec![
        ("belady (optimum)", Box::new(|trace, room| Box::new(Belady::new(trace, room)))),
        ("S3-FIFO (reference)", Box::new(|_, room| Box::new(S3Fifo { room, ..S3Fifo::default() }))),
        ("SIEVE (reference)", Box::new(|_, room| Box::new(Sieve::new(room)))),
        ("fifo", Box::new(|_, room| Box::new(Fifo { room, ..Fifo::default() }))),
    ]
}

/// Throws out what will be asked for last.
struct Belady {
    /// When the key at each position is asked for again.
    next: Vec<u32>,
    at: usize,
    room: usize,
    held: HashMap<u64, u32>,
    heap: BinaryHeap<(u32, u64)>,
}

impl Belady {
    fn new(trace: &[u64], room: usize) -> Self {
        let mut last: HashMap<u64, u32> = HashMap::new();
        let mut next = vec![u32::MAX; trace.len()];
        for (at, key) in trace.iter().enumerate().rev() {
            if let Some(again) = last.insert(*key, at as u32) {
                next[at] = again;
            }
        }
        Self { next, at: 0, room, held: HashMap::new(), heap: BinaryHeap::new() }
    }
}

impl Sim for Belady {
    fn access(&mut self, key: u64) -> bool {
        let again = self.next[self.at];
        self.at += 1;
        let hit = self.held.insert(key, again).is_some();
        self.heap.push((again, key));
        while self.held.len() > self.room {
            let (again, key) = self.heap.pop().expect("as many as are held");
            if self.held.get(&key) == Some(&again) {
                self.held.remove(&key);
            }
        }
        hit
    }
}

#[derive(Default)]
struct Fifo {
    room: usize,
    held: HashSet<u64>,
    queue: VecDeque<u64>,
}

impl Sim for Fifo {
    fn access(&mut self, key: u64) -> bool {
        if !self.held.insert(key) {
            return true;
        }
        self.queue.push_back(key);
        if self.queue.len() > self.room {
            self.queue.pop_front().map(|old| self.held.remove(&old));
        }
        false
    }
}

const NIL: usize = usize::MAX;

struct Node {
    key: u64,
    visited: bool,
    towards_head: usize,
    towards_tail: usize,
}

/// SIEVE (NSDI '24): FIFO queue, visited bit, a hand that walks from the tail.
struct Sieve {
    room: usize,
    held: HashMap<u64, usize>,
    nodes: Vec<Node>,
    head: usize,
    tail: usize,
    hand: usize,
}

impl Sieve {
    fn new(room: usize) -> Self {
        Self { room, held: HashMap::new(), nodes: Vec::new(), head: NIL, tail: NIL, hand: NIL }
    }

    /// Takes the next unvisited node out of the queue.
    fn evict(&mut self) -> usize {
        let mut at = if self.hand == NIL { self.tail } else { self.hand };
        while self.nodes[at].visited {
            self.nodes[at].visited = false;
            at = self.nodes[at].towards_head;
            at = if at == NIL { self.tail } else { at };
        }
        let Node { key, towards_head, towards_tail, .. } = self.nodes[at];
        self.hand = towards_head;
        match towards_head {
            NIL => self.head = towards_tail,
            node => self.nodes[node].towards_tail = towards_tail,
        }
        match towards_tail {
            NIL => self.tail = towards_head,
            node => self.nodes[node].towards_head = towards_head,
        }
        self.held.remove(&key);
        at
    }
}

impl Sim for Sieve {
    fn access(&mut self, key: u64) -> bool {
        if let Some(at) = self.held.get(&key) {
            self.nodes[*at].visited = true;
            return true;
        }
        let at = if self.held.len() < self.room { self.nodes.len() } else { self.evict() };
        let node = Node { key, visited: false, towards_head: NIL, towards_tail: self.head };
        if at == self.nodes.len() {
            self.nodes.push(node);
        } else {
            self.nodes[at] = node;
        }
        if self.head != NIL {
            self.nodes[self.head].towards_head = at;
        }
        self.head = at;
        if self.tail == NIL {
            self.tail = at;
        }
        self.held.insert(key, at);
        false
    }
}

/// S3-FIFO (SOSP '23): small 10 %, main 90 %, a ghost queue of keys as long as main.
#[derive(Default)]
struct S3Fifo {
    room: usize,
    frequency: HashMap<u64, u8>,
    small: VecDeque<u64>,
    main: VecDeque<u64>,
    ghosts: VecDeque<u64>,
    is_ghost: HashMap<u64, u32>,
}

impl S3Fifo {
    fn evict(&mut self) {
        while self.small.len() + self.main.len() >= self.room {
            if self.small.len() >= (self.room / 10).max(1) {
                self.evict_small();
            } else {
                self.evict_main();
            }
        }
    }

    fn evict_small(&mut self) {
        let Some(key) = self.small.pop_front() else { return };
        if self.frequency[&key] > 1 {
            self.frequency.insert(key, 0);
            self.main.push_back(key);
            return;
        }
        self.frequency.remove(&key);
        self.ghosts.push_back(key);
        *self.is_ghost.entry(key).or_default() += 1;
        while self.ghosts.len() > self.room * 9 / 10 {
            let Some(ghost) = self.ghosts.pop_front() else { return };
            let times = self.is_ghost.entry(ghost).or_insert(1);
            *times -= 1;
            if *times == 0 {
                self.is_ghost.remove(&ghost);
            }
        }
    }

    fn evict_main(&mut self) {
        let Some(key) = self.main.pop_front() else { return };
        match self.frequency.get_mut(&key) {
            Some(times) if *times > 0 => {
                *times -= 1;
                self.main.push_back(key);
            }
            _ => _ = self.frequency.remove(&key),
        }
    }
}

impl Sim for S3Fifo {
    fn access(&mut self, key: u64) -> bool {
        if let Some(times) = self.frequency.get_mut(&key) {
            *times = (*times + 1).min(3);
            return true;
        }
        self.evict();
        self.frequency.insert(key, 0);
        if self.is_ghost.contains_key(&key) {
            self.main.push_back(key);
        } else {
            self.small.push_back(key);
        }
        false
    }
}
