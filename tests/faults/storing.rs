//! What may be stored, and with whom a stored response may be shared.
