//! Closed sets of reasons with names that do not change.

/// When a reason is known at the latest, which decides where it can be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Known {
    /// Before the origin is asked, by the request and what is stored.
    BeforeFetch,
    /// When the head of the response is there: in time for the `Cache-Status` field.
    WithHead,
    /// When the body is over. The `Cache-Status` field has been sent by then, and does not say it.
    AfterBody,
}

/// A closed set of names that do not change between versions: reasons, and what else is counted by name.
///
/// Implemented by the enums of this crate alone.
pub trait Named: Copy + Eq + std::fmt::Debug + Send + Sync + sealed::Sealed + 'static {
    /// All of them, in the order in which they are declared.
    const ALL: &'static [Self];

    /// Returns the name, in kebab case.
    fn as_str(self) -> &'static str;

    /// Its place in [`ALL`](Self::ALL).
    #[doc(hidden)]
    fn index(self) -> usize;
}

pub(crate) mod sealed {
    pub trait Sealed {}
}

/// Defines a closed set of names, and lists all of them.
macro_rules! names {
    (
        $(#[$meta:meta])*
        pub enum $name:ident { $($(#[$doc:meta])* $reason:ident => $text:literal,)+ }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum $name { $($(#[$doc])* $reason,)+ }

        impl $name {
            /// Returns all of them, for labels of metrics that are made beforehand.
            pub const ALL: &'static [Self] = &[$(Self::$reason),+];

            /// Returns the name, in kebab case. It does not change between versions.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$reason => $text,)+
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl crate::reasons::sealed::Sealed for $name {}

        impl crate::reasons::Named for $name {
            const ALL: &'static [Self] = Self::ALL;

            fn as_str(self) -> &'static str {
                self.as_str()
            }

            fn index(self) -> usize {
                self as usize
            }
        }

        #[cfg(any(feature = "serde", feature = "dashboard"))]
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        #[cfg(any(feature = "serde", feature = "dashboard"))]
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                crate::reasons::by_name(deserializer)
            }
        }
    };
}

/// Defines a closed set of reasons, each with its name and the time at which it is known at the latest.
macro_rules! reasons {
    (
        $(#[$meta:meta])*
        pub enum $name:ident { $($(#[$doc:meta])* $reason:ident => $text:literal, $known:ident;)+ }
    ) => {
        crate::reasons::names! {
            $(#[$meta])*
            pub enum $name { $($(#[$doc])* $reason => $text,)+ }
        }

        impl $name {
            /// Returns when it is known at the latest.
            pub const fn known(self) -> crate::reasons::Known {
                match self {
                    $(Self::$reason => crate::reasons::Known::$known,)+
                }
            }
        }
    };
}

pub(crate) use names;
pub(crate) use reasons;

/// Reads a reason by its name.
#[cfg(any(feature = "serde", feature = "dashboard"))]
pub(crate) fn by_name<'de, R, D>(deserializer: D) -> Result<R, D::Error>
where
    R: Named,
    D: serde::Deserializer<'de>,
{
    let name = <std::borrow::Cow<'de, str> as serde::Deserialize>::deserialize(deserializer)?;
    let reason = R::ALL.iter().find(|reason| reason.as_str() == name);
    reason.copied().ok_or_else(|| serde::de::Error::custom(format_args!("unknown reason `{name}`")))
}

/// Writes a time in seconds, or nothing.
#[cfg(any(feature = "serde", feature = "dashboard"))]
#[allow(clippy::ref_option, reason = "as serde calls it")]
pub(crate) fn maybe_seconds<S: serde::Serializer>(
    span: &Option<std::time::Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serde::Serialize::serialize(&span.map(|span| span.as_secs_f64()), serializer)
}

/// Writes a time in seconds.
#[cfg(any(feature = "serde", feature = "dashboard"))]
pub(crate) fn seconds<S: serde::Serializer>(
    time: &std::time::Duration,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Forward, Lost, NotStored, OriginState, Refused, Stale, Unkeyed};

    fn check<R: Named>() {
        for (index, reason) in R::ALL.iter().enumerate() {
            assert_eq!(reason.index(), index, "{reason:?}");
            let name = reason.as_str();
            assert!(!name.is_empty() && name.bytes().all(|byte| byte == b'-' || byte.is_ascii_lowercase()));
        }
    }

    #[test]
    fn reasons_are_listed_in_order_and_named_in_kebab_case() {
        check::<Forward>();
        check::<Lost>();
        check::<NotStored>();
        check::<OriginState>();
        check::<Refused>();
        check::<Stale>();
        check::<Unkeyed>();
    }

    #[cfg(feature = "serde")]
    #[test]
    fn a_reason_is_serialised_as_its_name() {
        assert_eq!(serde_json::to_string(&NotStored::SetCookie).unwrap(), r#""set-cookie""#);
        assert_eq!(serde_json::from_str::<NotStored>(r#""set-cookie""#).unwrap(), NotStored::SetCookie);
        let error = serde_json::from_str::<NotStored>(r#""set-cookies""#).unwrap_err().to_string();
        assert!(error.starts_with("unknown reason `set-cookies`"), "{error}");
    }
}
