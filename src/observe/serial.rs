//! How numbers are serialised: names as keys.
#![cfg(any(feature = "serde", feature = "dashboard"))]

use serde::{Serialize, Serializer, ser::SerializeMap};

use super::snapshot::Counts;
use crate::reasons::Named;

impl<R: Named> Serialize for Counts<R> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(R::ALL.len()))?;
        for (name, count) in self.iter() {
            map.serialize_entry(name.as_str(), &count)?;
        }
        map.end()
    }
}
