//! Ports that a server can leave, and come back to.

use std::{
    net::{Ipv4Addr, TcpListener},
    sync::atomic::{AtomicU16, Ordering},
};

/// Below those that systems give to connections, and to listeners that do not ask for one: from 32,768 on.
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

/// Tests of other processes that run meanwhile begin elsewhere.
const APART: u32 = 16;

/// Returns a port on which nobody listens, and which only those that ask for it by its number get meanwhile.
pub(crate) fn own_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let begin = (std::process::id().wrapping_mul(APART) % u32::from(COUNT)) as u16;
    loop {
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + begin.wrapping_add(next) % COUNT;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}
