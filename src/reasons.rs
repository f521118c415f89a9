//! Closed sets of reasons with names that do not change.

/// Defines an enum of reasons, each with its name in kebab case, and lists all of them.
macro_rules! reasons {
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
    };
}

pub(crate) use reasons;
