//! Purges by strangers.
