//! What the heads of many stored responses have in common.
//!
//! The answers of one endpoint have the same fields in the same order, and some of the same values.
//! A header map for each of them would cost ten times what tells them apart. So the shape of a head
//! is kept once, as a map to be cloned, and each stored response keeps its own values alone.

use std::{
    cell::RefCell,
    collections::{HashMap, HashSet},
    hash::{BuildHasher, Hash, Hasher},
    ops::Range,
    sync::{Arc, LazyLock, Weak},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use parking_lot::RwLock;
use quick_cache::DefaultHashBuilder;
use smallvec::SmallVec;

use crate::exchange::status::{CACHE_STATUS, CacheStatus};
use crate::store::head::builder::{Field, Message, complete};
use crate::store::head::well_known;

/// Heads of other shapes are kept as maps of their own, at the price of one.
const MAX_SHAPES: usize = 256;
pub(super) const MAX_FIELDS: usize = 64;

/// Names are never given back: of this many, and no longer than that, 64 KiB.
const MAX_NAMES: usize = 1024;
const MAX_NAME: usize = 64;

/// Most heads have no more values of their own.
const USUAL_FIELDS: usize = 16;

/// The length of a value in front of the values.
const WIDTH: usize = size_of::<u16>();

/// The fields of a head in their order, and those of their values that many heads have.
#[derive(Debug)]
pub(in crate::store) struct HeaderTemplate {
    /// With empty values where each head has its own.
    prototype: HeaderMap,
    is_own: Box<[bool]>,
    /// Those of the message, which have the shape or not.
    message: Box<[Known]>,
}

#[derive(Debug)]
struct Known {
    name: HeaderName,
    /// Empty if each head has its own.
    value: HeaderValue,
    is_own: bool,
}

thread_local! {
    /// What an answer is compared with first, by the number of fields: most answers look like another
    /// one of late. Whatever nobody uses any more can go all the same.
    static RECENT: RefCell<[Weak<HeaderTemplate>; RECENT_SHAPES]> =
        const { RefCell::new([const { Weak::new() }; RECENT_SHAPES]) };
}

const RECENT_SHAPES: usize = 32;

impl HeaderTemplate {
    /// The shape of a message and what it has of its own, with so much room beside it. `None` if there
    /// are too many shapes already, or if it is none to be kept.
    pub(super) fn pack(message: &Message<'_>, room: usize) -> Option<(Arc<Self>, Vec<u8>)> {
        let count = message.headers.len();
        let recent = RECENT.try_with(|recent| recent.borrow()[count % RECENT_SHAPES].upgrade());
        if let Some(shape) = recent.ok().flatten()
            && let Some(values) = shape.values_of(message, room)
        {
            return Some((shape, values));
        }
        let shape = Self::of(&message.fields())?;
        // Another one of the same hash is as rare as it is harmless.
        let values = shape.values_of(message, room)?;
        let known = Arc::downgrade(&shape);
        _ = RECENT.try_with(|recent| recent.borrow_mut()[count % RECENT_SHAPES] = known);
        Some((shape, values))
    }

    fn of(fields: &[Field<'_>]) -> Option<Arc<Self>> {
        if fields.len() > MAX_FIELDS {
            return None;
        }
        let hash = SHAPES.hash(fields);
        let known = SHAPES.table.read().shapes.get(&hash).cloned();
        known.or_else(|| SHAPES.table.write().learn(hash, fields))
    }

    /// What a message has of its own, lengths and then values, if it is of this shape.
    fn values_of(&self, message: &Message<'_>, room: usize) -> Option<Vec<u8>> {
        let mut own = SmallVec::<[&[u8]; USUAL_FIELDS]>::new();
        let mut known = self.message.iter();
        message.try_each(|field| {
            if field.is_own {
                own.push(field.value.as_bytes());
            }
            known.next().filter(|known| known.is_like(&field)).map(|_| ())
        })?;
        if known.next().is_some() {
            return None;
        }
        let size: usize = own.iter().map(|value| WIDTH + value.len()).sum();
        let mut values = Vec::with_capacity(size + room);
        for value in &own {
            values.extend_from_slice(&u16::try_from(value.len()).ok()?.to_le_bytes());
        }
        own.iter().for_each(|value| values.extend_from_slice(value));
        Some(values)
    }

    /// Fills in the last value, which was empty.
    pub(super) fn set_last(&self, values: &mut Vec<u8>, last: &HeaderValue) {
        if let Some((_, length)) =
            values.get_mut(..self.own_count() * WIDTH).and_then(<[u8]>::split_last_chunk_mut)
        {
            *length = (last.len() as u16).to_le_bytes();
            values.reserve_exact(last.len());
            values.extend_from_slice(last.as_bytes());
        }
    }

    /// The head with these values of its own: no name is hashed and no place is sought, which makes it
    /// as cheap as the clone of a map.
    pub(super) fn to_headers(&self, own: impl Iterator<Item = HeaderValue>) -> HeaderMap {
        let mut headers = self.prototype.clone();
        let places = headers.values_mut().zip(&self.is_own).filter(|(_, is_own)| **is_own);
        // The values first: no place is sought for the one behind the last.
        for (own, (place, _)) in own.zip(places) {
            *place = own;
        }
        headers
    }

    /// The values of a head's own.
    pub(super) fn own_values(&self, values: &Bytes) -> impl Iterator<Item = HeaderValue> {
        let own = self.prototype.values().zip(&self.is_own).filter(|(_, is_own)| **is_own);
        let own = own.zip(self.ranges(values));
        own.map(|((value, _), range)| own_value(values, range, value).unwrap_or_else(|| value.clone()))
    }

    /// How many values are a head's own.
    pub(super) fn own_count(&self) -> usize {
        self.is_own.iter().filter(|is_own| **is_own).count()
    }

    /// The first value of a field in the head with these values, without the rest of it.
    pub(super) fn value(&self, values: &Bytes, name: &HeaderName) -> Option<HeaderValue> {
        let mut ranges = self.ranges(values);
        for ((theirs, value), is_own) in self.prototype.iter().zip(&self.is_own) {
            let range = if *is_own { ranges.next() } else { None };
            if theirs == name {
                return range.map_or(Some(value.clone()), |range| own_value(values, range, value));
            }
        }
        None
    }

    /// Where the values of a head's own are.
    fn ranges(&self, values: &[u8]) -> impl Iterator<Item = Range<usize>> {
        let mut end = self.own_count() * WIDTH;
        values.chunks_exact(WIDTH).map(move |length| {
            let start = end;
            end += usize::from(u16::from_le_bytes([length[0], length[1]]));
            start..end
        })
    }
}

fn own_value(values: &Bytes, range: Range<usize>, prototype: &HeaderValue) -> Option<HeaderValue> {
    // They were valid before.
    let mut own = HeaderValue::from_maybe_shared(values.slice(range)).ok()?;
    own.set_sensitive(prototype.is_sensitive());
    Some(own)
}

impl Known {
    fn is_like(&self, field: &Field<'_>) -> bool {
        self.name == *field.name
            && self.is_own == field.is_own
            && (field.is_own || self.value == *field.value)
            && self.value.is_sensitive() == field.value.is_sensitive()
    }
}

/// The value of a field in memory that is nobody's own, or an empty one.
fn fixed(field: &Field<'_>) -> HeaderValue {
    let mut fixed = match *field.name {
        _ if field.is_own => HeaderValue::from_static(""),
        CACHE_STATUS => CacheStatus::hit_value().clone(),
        _ => HeaderValue::from_static(well_known(field.value.as_bytes()).unwrap_or_default()),
    };
    fixed.set_sensitive(field.value.is_sensitive());
    fixed
}

static SHAPES: LazyLock<HeaderTemplates> = LazyLock::new(HeaderTemplates::default);

#[derive(Default)]
struct HeaderTemplates {
    hasher: DefaultHashBuilder,
    table: RwLock<Table>,
}

impl HeaderTemplates {
    fn hash(&self, fields: &[Field<'_>]) -> u64 {
        let mut state = self.hasher.build_hasher();
        for Field { name, value, is_own } in fields {
            name.hash(&mut state);
            state.write_u8(u8::from(*is_own) << 1 | u8::from(value.is_sensitive()));
            if !is_own {
                value.hash(&mut state);
            }
        }
        state.finish()
    }
}

#[derive(Default)]
struct Table {
    shapes: HashMap<u64, Arc<HeaderTemplate>, DefaultHashBuilder>,
    names: HashSet<&'static str>,
}

impl Table {
    fn learn(&mut self, hash: u64, fields: &[Field<'_>]) -> Option<Arc<HeaderTemplate>> {
        if self.shapes.len() >= MAX_SHAPES {
            self.shapes.retain(|_, shape| Arc::strong_count(shape) > 1);
        }
        let is_long = |field: &Field<'_>| {
            field.name.as_str().len() > MAX_NAME || field.value.len() > usize::from(u16::MAX)
        };
        let new = fields.iter().filter(|field| !self.names.contains(field.name.as_str())).count();
        if fields.iter().any(is_long) || self.shapes.len() >= MAX_SHAPES || self.names.len() + new > MAX_NAMES
        {
            return None;
        }
        let mut known = |field: &Field<'_>| Known {
            name: self.name(field.name),
            value: fixed(field),
            is_own: field.is_own,
        };
        let message = fields.iter().map(&mut known).collect();
        let head: Vec<_> = complete(fields.iter().copied()).iter().map(known).collect();
        let mut prototype = HeaderMap::with_capacity(head.len());
        for Known { name, value, .. } in &head {
            prototype.append(name.clone(), value.clone());
        }
        let is_own = head.iter().map(|known| known.is_own).collect();
        // A clone has no room to spare.
        let shape = Arc::new(HeaderTemplate { prototype: prototype.clone(), is_own, message });
        self.shapes.insert(hash, Arc::clone(&shape));
        Some(shape)
    }

    /// The same name without a counter, for which all threads would fight.
    fn name(&mut self, name: &HeaderName) -> HeaderName {
        let known = self.names.get(name.as_str()).copied().unwrap_or_else(|| {
            let name: &'static str = Box::leak(name.as_str().into());
            self.names.insert(name);
            name
        });
        HeaderName::from_static(known)
    }
}

#[cfg(test)]
#[path = "template_tests.rs"]
mod tests;
