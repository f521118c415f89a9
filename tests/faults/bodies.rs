//! What callers read while it is under way: budgets, pace, and bodies that end early.
