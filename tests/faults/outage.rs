//! What happens while the origin fails.
