//! Work and memory that a crafted request costs.
