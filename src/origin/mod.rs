//! The state of the origin, and who may ask it: pure rules over times and outcomes.

// The gate that uses them is not there yet.
#[cfg_attr(not(test), allow(dead_code))]
mod queue;
#[cfg_attr(not(test), allow(dead_code))]
mod rate;
