//! Which paths, queries and hosts a rule is for.
