//! What the heads of many stored responses have in common.
//!
//! The answers of one endpoint have the same fields in the same order, and some of the same values.
//! A header map for each of them would cost ten times what tells them apart. So the shape of a head
//! is kept once, as a map to be cloned, and each stored response keeps its own values alone.

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasher, Hash, Hasher},
    ops::Range,
    sync::{Arc, LazyLock},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use parking_lot::RwLock;
use quick_cache::DefaultHashBuilder;

use super::{draft::Field, head::well_known};
use crate::status::{CACHE_STATUS, CacheStatus};

/// Heads of other shapes are kept as maps of their own, at the price of one.
const MAX_SHAPES: usize = 256;
pub(super) const MAX_FIELDS: usize = 64;

/// Names are never given back: of this many, and no longer than that, 64 KiB.
const MAX_NAMES: usize = 1024;
const MAX_NAME: usize = 64;

/// The length of a value in front of the values.
const WIDTH: usize = size_of::<u16>();

/// The fields of a head in their order, and those of their values that many heads have.
#[derive(Debug)]
pub(super) struct Shape {
    /// With empty values where each head has its own.
    prototype: HeaderMap,
    is_own: Box<[bool]>,
}

impl Shape {
    /// The shape of a head. `None` if there are too many already, or if it is none to be kept.
    pub(super) fn of(fields: &[Field<'_>]) -> Option<Arc<Self>> {
        let is_long = |field: &Field<'_>| field.value.len() > usize::from(u16::MAX);
        if fields.len() > MAX_FIELDS || fields.iter().any(is_long) {
            return None;
        }
        let hash = SHAPES.hash(fields);
        let known = SHAPES.table.read().shapes.get(&hash).cloned();
        match known {
            // Another one of the same hash is as rare as it is harmless.
            Some(shape) => shape.fits(fields).then_some(shape),
            None => SHAPES.table.write().learn(hash, fields),
        }
    }

    fn fits(&self, fields: &[Field<'_>]) -> bool {
        let mut both = self.prototype.iter().zip(&self.is_own).zip(fields);
        self.prototype.len() == fields.len()
            && both.all(|(((name, fixed), is_own), field)| {
                name == field.name
                    && *is_own == field.is_own
                    && (field.is_own || fixed == field.value)
                    && fixed.is_sensitive() == field.value.is_sensitive()
            })
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
    pub(super) fn to_headers(&self, own: &[HeaderValue]) -> HeaderMap {
        let mut headers = self.prototype.clone();
        let places = headers.values_mut().zip(&self.is_own).filter(|(_, is_own)| **is_own);
        // The values first: no place is sought for the one behind the last.
        for (own, (place, _)) in own.iter().zip(places) {
            *place = own.clone();
        }
        headers
    }

    /// The values of a head's own, to be cloned.
    pub(super) fn own_values(&self, values: &Bytes) -> Box<[HeaderValue]> {
        let fields = self.prototype.values().zip(&self.is_own).filter(|(_, is_own)| **is_own);
        let mut own = Vec::with_capacity(self.own_count());
        for ((value, _), range) in fields.zip(self.ranges(values)) {
            own.push(own_value(values, range, value).unwrap_or_else(|| value.clone()));
        }
        own.into()
    }

    /// What [`own_values`](Self::own_values) takes, beside the text.
    pub(super) fn own_bytes(&self) -> usize {
        self.own_count() * size_of::<HeaderValue>()
    }

    fn own_count(&self) -> usize {
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

/// What a head of some shape has of its own: lengths, and values.
pub(super) fn values_of(fields: &[Field<'_>]) -> Vec<u8> {
    let own = || fields.iter().filter(|field| field.is_own).map(|field| field.value.as_bytes());
    let size: usize = own().map(|value| WIDTH + value.len()).sum();
    let mut values = Vec::with_capacity(size);
    // Longer ones have no shape.
    own().for_each(|value| values.extend_from_slice(&(value.len() as u16).to_le_bytes()));
    own().for_each(|value| values.extend_from_slice(value));
    values
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

static SHAPES: LazyLock<Shapes> = LazyLock::new(Shapes::default);

#[derive(Default)]
struct Shapes {
    hasher: DefaultHashBuilder,
    table: RwLock<Table>,
}

impl Shapes {
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
    shapes: HashMap<u64, Arc<Shape>, DefaultHashBuilder>,
    names: HashSet<&'static str>,
}

impl Table {
    fn learn(&mut self, hash: u64, fields: &[Field<'_>]) -> Option<Arc<Shape>> {
        if self.shapes.len() >= MAX_SHAPES {
            self.shapes.retain(|_, shape| Arc::strong_count(shape) > 1);
        }
        let is_long = |field: &Field<'_>| field.name.as_str().len() > MAX_NAME;
        let new = fields.iter().filter(|field| !self.names.contains(field.name.as_str())).count();
        if fields.iter().any(is_long) || self.shapes.len() >= MAX_SHAPES || self.names.len() + new > MAX_NAMES
        {
            return None;
        }
        let mut prototype = HeaderMap::with_capacity(fields.len());
        for field in fields {
            prototype.append(self.name(field.name), fixed(field));
        }
        let is_own = fields.iter().map(|field| field.is_own).collect();
        // A clone has no room to spare.
        let shape = Arc::new(Shape { prototype: prototype.clone(), is_own });
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
mod tests {
    use super::*;

    fn fields(headers: &HeaderMap) -> Vec<Field<'_>> {
        headers.iter().map(|(name, value)| Field::new(name, value)).collect()
    }

    fn shape(headers: &HeaderMap) -> Option<Arc<Shape>> {
        Shape::of(&fields(headers))
    }

    fn head(tag: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("age", &b"0"[..]),
            ("x-twice", b"1"),
            ("etag", tag.as_bytes()),
            ("x-twice", b"\xff"),
            ("x-empty", b""),
            ("content-type", b"text/html"),
            ("cache-status", b"Other;hit"),
        ] {
            headers.append(name, HeaderValue::from_bytes(value).unwrap());
        }
        headers.append(CACHE_STATUS, CacheStatus::hit().to_value());
        headers
    }

    #[test]
    fn a_head_is_the_same_with_its_order_when_it_comes_back() {
        for sensitive in ["etag", "content-type"] {
            let mut headers = head("\"1\"");
            headers.get_mut(sensitive).unwrap().set_sensitive(true);
            let (shape, values) = (shape(&headers).unwrap(), values_of(&fields(&headers)).into());
            let back = shape.to_headers(&shape.own_values(&values));
            assert!(back.iter().eq(headers.iter()), "{back:?}");
            let is_sensitive =
                |headers: &HeaderMap| headers.values().map(HeaderValue::is_sensitive).collect::<Vec<_>>();
            assert_eq!(is_sensitive(&back), is_sensitive(&headers));
            // One at a time as well.
            for name in headers.keys() {
                let value = shape.value(&values, name).unwrap();
                assert_eq!(Some(&value), headers.get(name), "{name}");
                assert_eq!(value.is_sensitive(), headers[name].is_sensitive(), "{name}");
            }
            assert_eq!(shape.value(&values, &http::header::VIA), None);
        }
    }

    #[test]
    fn heads_of_one_shape_share_it_and_others_do_not() {
        let first = shape(&head("\"1\"")).unwrap();
        assert!(Arc::ptr_eq(&first, &shape(&head("\"22\"")).unwrap()));
        let mut other = head("\"1\"");
        other.insert("content-type", HeaderValue::from_static("text/plain"));
        assert!(!Arc::ptr_eq(&first, &shape(&other).unwrap()));
        other.insert("x-long", HeaderValue::from_bytes(&[b'x'; 70_000]).unwrap());
        assert!(shape(&other).is_none());
    }

    #[test]
    fn there_are_so_many_shapes_and_no_more() {
        let mut table = Table::default();
        let mut kept = Vec::new();
        for number in 0..2 * MAX_NAMES {
            let mut headers = HeaderMap::new();
            headers.insert(HeaderName::try_from(format!("x-{number}")).unwrap(), "own".parse().unwrap());
            let shape = table.learn(number as u64, &fields(&headers));
            assert_eq!(shape.is_some(), number < MAX_SHAPES, "{number}");
            kept.extend(shape);
        }
        // What nobody uses makes room.
        kept.clear();
        assert!(table.learn(u64::MAX, &fields(&head("\"1\""))).is_some());
        assert_eq!(table.shapes.len(), 1);
    }
}
