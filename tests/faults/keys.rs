//! Keys: targets, authorities, and configuration that cannot have an effect.
