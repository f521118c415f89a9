//! Variants and validators: no response of one variant for another.
