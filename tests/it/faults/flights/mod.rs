//! How long callers and fetches wait for each other, and who goes where.

mod abandoned;
mod bounds;
mod failing;
mod moving;
mod nested;
mod sharing;
mod waiting;
