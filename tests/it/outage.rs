//! What happens when the origin is slow, failing or gone.

mod events;
mod hang;
mod key_pause;
mod probe;
mod refresh_ahead;
mod retries;
mod slow;
mod warm_up;
