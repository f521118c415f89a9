//! What a purge understands and reaches.
