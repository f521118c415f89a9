//! Stored errors, entries pushed out, and one client's failure for all.
