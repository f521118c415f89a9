//! Cache poisoning and cache deception: what the key does not show, and paths read in two ways.
