//! Rules that are for some requests only, by more than their path.
