//! The storing settings of key rules.

use std::time::Duration;

use http::Extensions;

use super::{KeyRule, error::Problem};
use crate::http::rules::{Heuristic, Rules, Share, StaleWindow, StaleWindows, Ttl, WithheldNames};

/// Passes the definitions of all storing settings to the macro `$then`. A setting has
///
/// * a name, which is that of its setter, of its field in documents and of its setter in [`Rules`];
/// * the arguments of the setter, and the `value` that it stores;
/// * `document`: the type that documents are read as, which converts into the value;
/// * `apply`: how it changes the configured [`Rules`];
/// * `explain`: its words in [`KeyRules::explain`](super::KeyRules::explain).
macro_rules! storing_settings {
    ($then:ident) => {
        $then! {
            /// See [`Rules::fixed_ttl`](crate::Rules::fixed_ttl).
            fixed_ttl(fresh_for: Duration) -> Duration {
                value: fresh_for,
                document: Span,
                apply: |rules, ttl| rules.ttl = Ttl::Fixed(ttl),
                explain: |ttl| format!("for {}, whatever lifetime the response gives", in_units(*ttl)),
            }

            /// See [`Rules::default_ttl`](crate::Rules::default_ttl).
            default_ttl(fresh_for: Duration) -> Duration {
                value: fresh_for,
                document: Span,
                apply: |rules, ttl| rules.ttl = Ttl::OriginOr(ttl),
                explain: |ttl| format!("for as long as the response says, or else {}", in_units(*ttl)),
            }

            /// See [`Rules::negative_ttl`](crate::Rules::negative_ttl).
            negative_ttl(fresh_for: Duration) -> Duration {
                value: fresh_for,
                document: Span,
                apply: |rules, ttl| rules.negative_ttl = Some(ttl),
                explain: |ttl| format!("404 and 410 for {}", in_units(*ttl)),
            }

            /// See [`Rules::heuristic`](crate::Rules::heuristic). In a document:
            /// `"heuristic": { "share": 0.1, "at_most": "1d" }`.
            heuristic(share: f64, at_most: Duration) -> Heuristic {
                value: Heuristic::new(share, at_most),
                document: HeuristicDocument,
                apply: |rules, heuristic| rules.heuristic = Some(heuristic),
                explain: |guess| format!(
                    "by `Last-Modified`, for at most {}, where nothing else gives a lifetime",
                    in_units(guess.at_most)
                ),
            }

            /// See [`Rules::stale_while_revalidate_for`](crate::Rules::stale_while_revalidate_for).
            stale_while_revalidate_for(window: Duration) -> Duration {
                value: window,
                document: Span,
                apply: |rules, window| rules.stale_while_revalidate_for = window,
                explain: |window| format!("stale for {} while a fresh response is fetched", in_units(*window)),
            }

            /// See [`Rules::stale_if_error_for`](crate::Rules::stale_if_error_for).
            stale_if_error_for(window: Duration) -> Duration {
                value: window,
                document: Span,
                apply: |rules, window| rules.stale_if_error_for = window,
                explain: |window| format!("stale for {} when the origin fails", in_units(*window)),
            }

            /// See [`Rules::stale_despite_revalidate`](crate::Rules::stale_despite_revalidate). In a document:
            /// `"stale_despite_revalidate": ["while-revalidating", "if-error"]`.
            stale_despite_revalidate(windows: impl IntoIterator<Item = StaleWindow>) -> StaleWindows {
                value: windows.into_iter().collect(),
                document: Vec<StaleWindow>,
                apply: |rules, windows| rules.stale_despite_revalidate = windows,
                explain: |windows| format!("stale despite `must-revalidate`: {}", in_words(*windows)),
            }

            /// See [`Rules::revalidate_for`](crate::Rules::revalidate_for).
            revalidate_for(window: Duration) -> Duration {
                value: window,
                document: Span,
                apply: |rules, window| rules.revalidate_for = window,
                explain: |window| format!("kept for revalidation for {}", in_units(*window)),
            }

            /// See [`Rules::ttl_jitter`](crate::Rules::ttl_jitter).
            ttl_jitter(share: f64) -> Share {
                value: Share::new(share),
                document: f64,
                apply: |rules, share| rules.spread.jitter = Some(share),
                explain: |share| format!("lifetimes shorter by up to {} at random", share.as_f64()),
            }

            /// See [`Rules::refresh_ahead`](crate::Rules::refresh_ahead).
            refresh_ahead(share: f64) -> Share {
                value: Share::new(share),
                document: f64,
                apply: |rules, share| rules.spread.refresh_ahead = Some(share),
                explain: |share| format!("refreshed ahead after {} of the lifetime", share.as_f64()),
            }

            /// See [`Rules::hit_for_miss_for`](crate::Rules::hit_for_miss_for).
            hit_for_miss_for(window: Duration) -> Duration {
                value: window,
                document: Span,
                apply: |rules, window| rules.hit_for_miss_for = window,
                explain: |window| format!(
                    "not collapsed for {} after an unshareable response",
                    in_units(*window)
                ),
            }

            /// See [`Rules::store_set_cookie`](crate::Rules::store_set_cookie).
            store_set_cookie(store: bool) -> bool {
                value: store,
                document: bool,
                apply: |rules, store| rules.store_set_cookie = store,
                explain: |store| format!("{} responses with `Set-Cookie`", also(*store)),
            }

            /// See [`Rules::store_without`](crate::Rules::store_without), which this replaces. With no name
            /// in the list, responses are stored with all the fields that they may be stored with.
            store_without(names: impl IntoIterator<Item = impl Into<String>>) -> WithheldNames {
                value: names.into_iter().map(Into::into).collect(),
                document: Vec<String>,
                apply: |rules, names| rules.store_without = names,
                explain: without,
            }

            /// See [`Rules::store_private`](crate::Rules::store_private).
            store_private(store: bool) -> bool {
                value: store,
                document: bool,
                apply: |rules, store| rules.store_private = store,
                explain: |store| format!("{} `private` responses", also(*store)),
            }

            /// See [`Rules::store_no_store`](crate::Rules::store_no_store).
            store_no_store(store: bool) -> bool {
                value: store,
                document: bool,
                apply: |rules, store| rules.store_no_store = store,
                explain: |store| format!("{} `no-store` responses", also(*store)),
            }

            /// See [`Rules::store_authorized`](crate::Rules::store_authorized).
            store_authorized(store: bool) -> bool {
                value: store,
                document: bool,
                apply: |rules, store| rules.store_authorized = store,
                explain: |store| format!("{} responses to requests with `Authorization`", also(*store)),
            }
        }
    };
}
#[cfg(feature = "serde")]
pub(super) use storing_settings;

macro_rules! define {
    ($(
        $(#[$doc:meta])*
        $setting:ident($($argument:ident: $argument_type:ty),*) -> $type:ty {
            value: $value:expr,
            document: $document:ty,
            apply: $apply:expr,
            explain: $explain:expr,
        }
    )*) => {
        /// The settings of [`Rules`] that a key rule overrides. `None` leaves the configured value.
        ///
        /// With the key of a request its rule puts them into the extensions of the request.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub(crate) struct RuleOverrides {
            $(pub(super) $setting: Option<$type>,)*
        }

        impl RuleOverrides {
            fn apply(&self, mut rules: Rules) -> Rules {
                $(if let Some(value) = &self.$setting {
                    let apply: fn(&mut Rules, $type) = $apply;
                    apply(&mut rules, value.clone());
                })*
                rules
            }

            fn each_in_words(&self) -> Vec<String> {
                let mut words = Vec::new();
                $(if let Some(value) = &self.$setting {
                    let explain: fn(&$type) -> String = $explain;
                    words.push(explain(value));
                })*
                words
            }
        }

        impl KeyRule {
            $($(#[$doc])*
            pub fn $setting(mut self, $($argument: $argument_type),*) -> Self {
                self.overrides.$setting = Some($value);
                self
            })*
        }
    };
}

storing_settings!(define);

impl RuleOverrides {
    /// The rules for a request: those that a middleware put into its extensions, else the configured
    /// ones with the overrides of the request's key rule.
    pub(crate) fn rules_for(request: &Extensions, configured: &Rules) -> Rules {
        match (request.get::<Rules>(), request.get::<Self>()) {
            (Some(own), _) => own.clone(),
            (None, Some(overrides)) => overrides.apply(configured.clone()),
            (None, None) => configured.clone(),
        }
    }

    /// These overrides, if there are any and they can work.
    pub(super) fn checked(&self) -> Result<Option<Self>, Problem> {
        if self.fixed_ttl.is_some() && self.default_ttl.is_some() {
            let reason = "every response has the `fixed_ttl`";
            return Err(Problem::NoEffect { setting: "default_ttl", reason });
        }
        self.apply(Rules::new()).check().map_err(Problem::Storing)?;
        Ok((*self != Self::default()).then(|| self.clone()))
    }

    pub(super) fn in_words(&self) -> String {
        let has_ttl = self.fixed_ttl.is_some() || self.default_ttl.is_some();
        let lifetime = (!has_ttl).then(|| "for as long as the response says".to_owned());
        lifetime.into_iter().chain(self.each_in_words()).collect::<Vec<_>>().join("; ")
    }
}

fn also(store: bool) -> &'static str {
    if store { "also" } else { "not" }
}

fn without(names: &WithheldNames) -> String {
    match *names == WithheldNames::NONE {
        true => "with all fields".into(),
        false => format!("without the fields {names}"),
    }
}

fn in_words(windows: StaleWindows) -> String {
    let windows = [
        windows.while_revalidating.then_some("while a fresh response is fetched"),
        windows.if_error.then_some("when the origin fails"),
    ];
    let words: Vec<_> = windows.into_iter().flatten().collect();
    if words.is_empty() { "never".into() } else { words.join(" and ") }
}

/// A time in the largest unit that it is a multiple of.
fn in_units(time: Duration) -> String {
    let seconds = time.as_secs();
    let units = [(86_400, "d"), (3600, "h"), (60, "m"), (1, "s")];
    match units.into_iter().find(|(unit, _)| seconds > 0 && seconds.is_multiple_of(*unit)) {
        Some((unit, name)) if time.subsec_nanos() == 0 => format!("{}{name}", seconds / unit),
        _ => format!("{time:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_named_settings_change_and_rules_of_a_middleware_win() {
        let configured = Rules::new().stale_if_error_for(Duration::from_secs(5)).negative_ttl(Duration::ZERO);
        let mut request = Extensions::new();
        assert_eq!(RuleOverrides::rules_for(&request, &configured), configured);
        let rule = KeyRule::any().fixed_ttl(Duration::from_secs(1)).store_authorized(true);
        request.insert(rule.overrides);
        let changed = configured.clone().fixed_ttl(Duration::from_secs(1)).store_authorized(true);
        assert_eq!(RuleOverrides::rules_for(&request, &configured), changed);
        request.insert(Rules::new());
        assert_eq!(RuleOverrides::rules_for(&request, &configured), Rules::new());
    }

    #[test]
    fn times_are_in_the_unit_that_leaves_no_fraction() {
        for (time, text) in [
            (Duration::from_secs(604_800), "7d"),
            (Duration::from_secs(5400), "90m"),
            (Duration::from_secs(61), "61s"),
            (Duration::from_millis(200), "200ms"),
            (Duration::from_millis(1500), "1.5s"),
            (Duration::ZERO, "0ns"),
        ] {
            assert_eq!(in_units(time), text);
        }
    }
}
