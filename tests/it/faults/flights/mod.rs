//! How long callers and fetches wait for each other, and which fetch a caller moves to.

mod abandoned;
mod bounds;
mod failing;
mod moving;
mod nested;
mod sharing;
mod waiting;
