//! What the heads of many stored responses have in common.
//!
//! The responses of one endpoint have the same fields in the same order, and some of the same values. A
//! header map for each would take ten times the memory of what tells them apart. So names, order and common
//! values are kept once, as a map to be cloned, and each stored response keeps its own values alone.

use std::{
    cell::RefCell,
    collections::{HashMap, HashSet},
    hash::{BuildHasher, Hash, Hasher},
    ops::Range,
    sync::{Arc, LazyLock, Weak},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header::CACHE_STATUS};
use parking_lot::RwLock;
use quick_cache::DefaultHashBuilder;
use smallvec::SmallVec;

use super::{Field, HIT, Message, complete, well_known};

/// Templates in use at a time, in a process. Further heads are kept as maps of their own.
const MAX_TEMPLATES: usize = 256;
pub(super) const MAX_FIELDS: usize = 64;

/// Names that are kept for good, so that no hit touches a reference count for them: 64 KiB at most. Templates
/// with further names hold those by reference count, and go with them.
const MAX_NAMES: usize = 1024;
const MAX_NAME: usize = 64;

/// Most heads have no more own values.
const USUAL_FIELDS: usize = 16;

/// The length of a value in front of the values.
const WIDTH: usize = size_of::<u16>();

/// The fields of heads in their order, and those of their values that all of these heads have.
#[derive(Debug)]
pub(super) struct HeaderTemplate {
    /// With empty values where each head has its own.
    prototype: HeaderMap,
    is_own: Box<[bool]>,
    /// The fields of the message, to compare others with.
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
    /// With what a response is compared first, by the number of its fields: most look like a recent one.
    /// Weak, so that unused templates can go.
    static RECENT: RefCell<[Weak<HeaderTemplate>; RECENT_TEMPLATES]> =
        const { RefCell::new([const { Weak::new() }; RECENT_TEMPLATES]) };
}

const RECENT_TEMPLATES: usize = 32;

impl HeaderTemplate {
    /// Returns the template of a message and its own values, with `room` bytes to spare. `None` if there are
    /// too many templates, or if a name or a value is too long.
    pub(super) fn pack(message: &Message<'_>, room: usize) -> Option<(Arc<Self>, Vec<u8>)> {
        let count = message.headers.len();
        let recent = RECENT.try_with(|recent| recent.borrow()[count % RECENT_TEMPLATES].upgrade());
        if let Some(template) = recent.ok().flatten()
            && let Some(values) = template.values_of(message, room)
        {
            return Some((template, values));
        }
        let template = Self::of(&message.fields())?;
        // Another head with the same hash is rare, and gets a map.
        let values = template.values_of(message, room)?;
        let known = Arc::downgrade(&template);
        _ = RECENT.try_with(|recent| recent.borrow_mut()[count % RECENT_TEMPLATES] = known);
        Some((template, values))
    }

    fn of(fields: &[Field<'_>]) -> Option<Arc<Self>> {
        if fields.len() > MAX_FIELDS {
            return None;
        }
        let hash = TEMPLATES.hash(fields);
        let known = TEMPLATES.table.read().templates.get(&hash).cloned();
        known.or_else(|| TEMPLATES.table.write().learn(hash, fields))
    }

    /// Returns the own values of a message, lengths first, if it is like this template.
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

    /// Sets the last value, which was empty.
    pub(super) fn set_last(&self, values: &mut Vec<u8>, last: &HeaderValue) {
        if let Some((_, length)) =
            values.get_mut(..self.own_count() * WIDTH).and_then(<[u8]>::split_last_chunk_mut)
        {
            *length = (last.len() as u16).to_le_bytes();
            values.reserve_exact(last.len());
            values.extend_from_slice(last.as_bytes());
        }
    }

    /// Returns the head with these values of its own. No name is hashed, which makes it as cheap as a clone.
    pub(super) fn to_headers(&self, own: impl Iterator<Item = HeaderValue>) -> HeaderMap {
        let mut headers = self.prototype.clone();
        let places = headers.values_mut().zip(&self.is_own).filter(|(_, is_own)| **is_own);
        // The values first, to end with the last of them.
        for (own, (place, _)) in own.zip(places) {
            *place = own;
        }
        headers
    }

    /// Returns the own values of a head.
    pub(super) fn own_values(&self, values: &Bytes) -> impl Iterator<Item = HeaderValue> {
        let own = self.prototype.values().zip(&self.is_own).filter(|(_, is_own)| **is_own);
        let own = own.zip(self.ranges(values));
        own.map(|((value, _), range)| own_value(values, range, value).unwrap_or_else(|| value.clone()))
    }

    /// Returns how many values are a head's own.
    pub(super) fn own_count(&self) -> usize {
        self.is_own.iter().filter(|is_own| **is_own).count()
    }

    /// Returns the first value of a field in the head with these own values.
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

    /// Returns where each of the own values is.
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
    // It was valid before.
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

/// The value of a field in static memory, or an empty one for an own value.
fn fixed(field: &Field<'_>) -> HeaderValue {
    let mut fixed = match *field.name {
        _ if field.is_own => HeaderValue::from_static(""),
        CACHE_STATUS => HIT.clone(),
        _ => HeaderValue::from_static(well_known(field.value.as_bytes()).unwrap_or_default()),
    };
    fixed.set_sensitive(field.value.is_sensitive());
    fixed
}

static TEMPLATES: LazyLock<HeaderTemplates> = LazyLock::new(HeaderTemplates::default);

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
    templates: HashMap<u64, Arc<HeaderTemplate>, DefaultHashBuilder>,
    names: HashSet<&'static str>,
}

impl Table {
    fn learn(&mut self, hash: u64, fields: &[Field<'_>]) -> Option<Arc<HeaderTemplate>> {
        if self.templates.len() >= MAX_TEMPLATES {
            self.templates.retain(|_, template| Arc::strong_count(template) > 1);
        }
        let is_long = |field: &Field<'_>| {
            field.name.as_str().len() > MAX_NAME || field.value.len() > usize::from(u16::MAX)
        };
        if fields.iter().any(is_long) || self.templates.len() >= MAX_TEMPLATES {
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
        // A clone has no spare capacity.
        let template = Arc::new(HeaderTemplate { prototype: prototype.clone(), is_own, message });
        self.templates.insert(hash, Arc::clone(&template));
        Some(template)
    }

    /// Returns the same name without a reference count, for which all threads would contend, as long as there
    /// is room for it.
    fn name(&mut self, name: &HeaderName) -> HeaderName {
        let text = name.as_str();
        if let Some(known) = self.names.get(text) {
            return HeaderName::from_static(known);
        }
        if self.names.len() >= MAX_NAMES {
            return HeaderName::from_bytes(text.as_bytes()).unwrap_or_else(|_| name.clone());
        }
        let kept: &'static str = Box::leak(text.into());
        self.names.insert(kept);
        HeaderName::from_static(kept)
    }
}

#[cfg(test)]
#[path = "template_tests.rs"]
mod tests;
