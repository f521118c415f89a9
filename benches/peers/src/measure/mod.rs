//! The measurements: each takes the arguments and makes a table.

mod check;
mod children;
mod hit;
mod memory;
mod miss;
mod one;
mod pass;
mod rounds;
mod stampede;
mod ttl;
mod workload;

pub(crate) use self::{
    check::{check, list},
    hit::{hit, mt},
    memory::{mem, mem_one},
    miss::miss,
    one::one,
    pass::pass,
    stampede::{stampede, stampede_one},
    ttl::{ttl, ttl_one},
};
