//! Key rules with random requests: keys tell apart what counts, and nothing else.

use std::collections::{HashMap, HashSet};

use http::{Method, Request, request::Parts};
use proptest::prelude::*;
use tower::Layer;
use tower_readthrough::{
    CacheKey, DefaultKey, Guard, KeyExtractor, KeyRule, KeyRules, KeyRulesBuilder, ReadThroughLayer, When,
};

use crate::support::{ScriptedOrigin, call, fixed, response, store};

/// What a request consists of, as far as keys are concerned.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct AskedFor {
    method: Method,
    scheme: &'static str,
    authority: String,
    path: String,
    query: Option<String>,
    headers: Vec<(&'static str, String)>,
    tenant: Option<String>,
}

#[derive(Clone)]
struct Tenant(String);

impl AskedFor {
    fn head(&self) -> Parts {
        let query = self.query.as_ref().map(|query| format!("?{query}")).unwrap_or_default();
        let uri = format!("{}://{}{}{query}", self.scheme, self.authority, self.path);
        let mut request = Request::builder().method(self.method.clone()).uri(uri);
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        let mut head = request.body(()).unwrap().into_parts().0;
        self.tenant.clone().map(|tenant| head.extensions.insert(Tenant(tenant)));
        head
    }

    /// The values of a field, in order.
    fn field(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(own, _)| *own == name).map(|(_, value)| value.as_str()).collect()
    }
}

fn asked() -> impl Strategy<Value = AskedFor> {
    let method = prop_oneof![Just(Method::GET), Just(Method::HEAD)];
    let scheme = prop_oneof![Just("http"), Just("https")];
    let authority = prop_oneof![Just("h"), Just("h:8"), Just("hh")].prop_map(str::to_owned);
    let segment = prop_oneof![
        3 => "[ab]{1,2}",
        1 => prop_oneof![Just(".."), Just("."), Just(""), Just("%2e"), Just("%2F"), Just("%61"), Just("a;b"), Just("%20")].prop_map(str::to_owned),
    ];
    let path =
        proptest::collection::vec(segment, 0..4).prop_map(|segments| format!("/{}", segments.join("/")));
    let pair = prop_oneof![
        4 => ("[abu]", "[12]{0,2}").prop_map(|(name, value)| format!("{name}={value}")),
        1 => prop_oneof![Just("a"), Just(""), Just("%61=1"), Just("A=1"), Just("a[]=1"), Just("u;a=1"), Just("%=1"), Just("u_x=1")].prop_map(str::to_owned),
    ];
    let query = proptest::option::of(proptest::collection::vec(pair, 0..4).prop_map(|pairs| pairs.join("&")));
    let header = prop_oneof![
        "[ab,]{0,2}".prop_map(|value| ("x-a", value)),
        "[ab,]{0,2}".prop_map(|value| ("x-b", value)),
        "(c|C|%63|b)(=[12\"]?)?([;, ]{1,2}(c|b)=[12])?".prop_map(|value| ("cookie", value)),
        "[12]?".prop_map(|value| ("x-c", value)),
        "[12]?".prop_map(|value| ("x_c", value)),
    ];
    let headers = proptest::collection::vec(header, 0..3);
    let tenant = proptest::option::of("[ab]{0,2}");
    (method, scheme, authority, path, query, headers, tenant).prop_map(
        |(method, scheme, authority, path, query, headers, tenant)| AskedFor {
            method,
            scheme,
            authority,
            path,
            query,
            headers,
            tenant,
        },
    )
}

/// Two requests that have much in common, and perhaps all.
fn two() -> impl Strategy<Value = (AskedFor, AskedFor)> {
    (asked(), asked(), proptest::bits::u8::ANY).prop_map(|(a, b, differs)| {
        let pick = |bit: u8| differs & (1 << bit) != 0 && differs & 1 != 0;
        let second = AskedFor {
            method: if pick(1) { b.method } else { a.method.clone() },
            scheme: if pick(2) { b.scheme } else { a.scheme },
            authority: if pick(3) { b.authority } else { a.authority.clone() },
            path: if pick(4) { b.path } else { a.path.clone() },
            query: if pick(5) { b.query } else { a.query.clone() },
            headers: if pick(6) { b.headers } else { a.headers.clone() },
            tenant: if pick(7) { b.tenant } else { a.tenant.clone() },
        };
        (a, second)
    })
}

fn builder(rules: impl IntoIterator<Item = KeyRule>) -> KeyRulesBuilder {
    let builder =
        KeyRules::builder().extension("tenant", |tenant: &Tenant| Some(tenant.0.as_bytes().to_vec().into()));
    rules.into_iter().fold(builder, KeyRulesBuilder::rule)
}

/// Rules with every setting.
fn all_kinds() -> KeyRulesBuilder {
    builder([
        KeyRule::path("/a/{x}").host("hh").bypass(),
        KeyRule::path("/a/{_}/{x}").keep_query(["a", "u*"]).forward_unkeyed(),
        KeyRule::path("/b?a={a}&u={_}"),
        KeyRule::path("/b?a={a}"),
        KeyRule::path("/a/{x}").method("GET").ignore_query(["u*"]).sort_query(),
        KeyRule::path("/b/{*_}").sort_query().forward_unkeyed().extensions(["tenant"]),
        KeyRule::path("/ab").no_vary_search(),
        KeyRule::path("/a").host("h").headers(["x-a", "x-b"]),
    ])
}

/// Rules of which several may be for one URI.
fn with_conditions() -> KeyRulesBuilder {
    let cookie = |condition: &'static str| When::new().cookies([condition]);
    builder([
        KeyRule::path("/a").when(cookie("c=1")).keep_query(["a"]).cookies([]),
        KeyRule::path("/{*all}").when(When::new().query(["b"]).no_headers(["x-c: 2"])).bypass(),
        KeyRule::path("/a").when(When::new().headers(["x-c: 1"])).method("HEAD").sort_query(),
        KeyRule::path("/{x}").when(cookie("c")).method("GET").ignore_query(["u*"]),
        KeyRule::path("/{x}").when(When::new().no_cookies(["c"])).drop_empty_query().cookies([]),
        KeyRule::path("/a").keep_query(["u"]),
    ])
}

/// Whether some servers find the cookie `c`, and the field `x-c`.
fn readings(asked: &AskedFor) -> Vec<bool> {
    let cookies = asked.field("cookie").join(";");
    let decoded = cookies.replace("%63", "c");
    let has = |text: &str, separators: &[char], name: &str| {
        let names = text.split(separators).filter_map(|pair| pair.trim().split('=').next());
        names.map(str::trim_end).any(|own| own == name)
    };
    let value_of = |text: &str| {
        let mut pairs = text.split(';').map(str::trim);
        pairs.find_map(|pair| pair.strip_prefix("c=")).is_some_and(|value| value.trim_matches('"') == "1")
    };
    vec![
        has(&cookies, &[';'], "c"),
        has(&cookies, &[';', ','], "c"),
        has(&cookies, &[';', ' '], "c"),
        has(&decoded, &[';'], "c"),
        has(&cookies.to_lowercase(), &[';'], "c"),
        value_of(&cookies),
        value_of(&decoded),
        asked.field("x-c").first() == Some(&"1"),
        asked.field("x-c").last() == Some(&"1"),
        asked.field("x_c").first().or(asked.field("x-c").first()) == Some(&"1"),
    ]
}

fn identity(rules: &KeyRules, head: &Parts) -> Option<CacheKey> {
    rules.identity(&head.uri, head.headers.get("host"), &head.extensions)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Where everything counts, two requests have the same key only if all of it is the same.
    #[test]
    fn keys_are_injective_over_all_that_counts((a, b) in two()) {
        let rules = builder([KeyRule::any().headers(["x-a", "x-b"]).extensions(["tenant"])]).build().unwrap();
        let (Some(first), Some(second)) = (rules.key(&a.head()), rules.key(&b.head())) else {
            prop_assert!(a.tenant.is_none() || b.tenant.is_none());
            return Ok(());
        };
        let all = |asked: &AskedFor| {
            let AskedFor { scheme, authority, path, query, tenant, .. } = asked.clone();
            let fields = ["x-a", "x-b"].map(|name| asked.field(name).join("\n"));
            let lines = ["x-a", "x-b"].map(|name| asked.field(name).len());
            (scheme, authority, path, query, fields, lines, tenant)
        };
        prop_assert_eq!(first == second, all(&a) == all(&b), "GET and HEAD share what all else shares");
    }

    /// One rule for many captures: each combination of them has a key of its own.
    #[test]
    fn keys_are_injective_over_captures(
        a in ("[ab%41/]{1,4}", "[ab/]{1,4}", "[ab&=]{0,4}"),
        b in ("[ab%41/]{1,4}", "[ab/]{1,4}", "[ab&=]{0,4}"),
        gap in "[xy]{1,3}",
    ) {
        let rules = builder([KeyRule::path("/{_}/{one}/{two}?q={q}&gap={_}").forward_unkeyed()]).build().unwrap();
        let key = |(one, two, q): &(String, String, String), gap: &str| {
            let uri = format!("http://h/{gap}/{}/{}?gap={gap}&q={q}", one.replace('%', "%25"), two);
            Some(rules.key(&Request::get(uri).body(()).ok()?.into_parts().0)).flatten()
        };
        if let (Some(first), Some(second)) = (key(&a, "z"), key(&b, &gap)) {
            let is_simple = |(one, two, q): &(String, String, String)| !format!("{one}{two}{q}").contains(['/', '&', '%']);
            if is_simple(&a) && is_simple(&b) {
                prop_assert_eq!(first == second, a == b);
            } else if a != b {
                prop_assert_ne!(first, second);
            }
        }
    }

    /// The boundary between two values is part of the key.
    #[test]
    fn the_boundary_between_two_values_counts(text in "[ab]{2,6}", one in 0..7_usize, other in 0..7_usize) {
        let (one, other) = (one.min(text.len()), other.min(text.len()));
        let fields = builder([KeyRule::any().headers(["x-a"]).extensions(["tenant"])]).build().unwrap();
        let by_fields = |at: usize| {
            let mut head = Request::get("http://h/").header("x-a", &text[..at]).body(()).unwrap().into_parts().0;
            head.extensions.insert(Tenant(text[at..].to_owned()));
            fields.key(&head)
        };
        prop_assert_eq!(by_fields(one) == by_fields(other), one == other);

        let captures = builder([KeyRule::path("/{_}/{one}/{two}?q={q}").forward_unkeyed()]).build().unwrap();
        let by_captures = |at: usize| {
            let uri = format!("http://h/x/a{}/a{}?q=1", &text[..at], &text[at..]);
            captures.key(&Request::get(uri).body(()).unwrap().into_parts().0)
        };
        prop_assert!(by_captures(one).is_some());
        prop_assert_eq!(by_captures(one) == by_captures(other), one == other);
    }

    /// A purge of one reaches the entry of the other.
    #[test]
    fn requests_that_share_a_key_share_an_identity((a, b) in two()) {
        let rules = all_kinds().build().unwrap();
        let name = |asked: &AskedFor| {
            let head = asked.head();
            // Without an identity the URI itself is named.
            let uri = || CacheKey::from_parts([asked.authority.as_str(), &head.uri.path_and_query().unwrap().to_string()]);
            identity(&rules, &head).unwrap_or_else(uri)
        };
        let keys = (rules.key(&a.head()), rules.key(&b.head()));
        if keys.0.is_some() && keys.0 == keys.1 {
            prop_assert_eq!(name(&a), name(&b));
        }
        // Neither client nor method changes the identity.
        let bare = AskedFor { method: Method::POST, headers: Vec::new(), tenant: None, scheme: "http", ..a.clone() };
        prop_assert_eq!(name(&a), name(&bare));
        let mut http1 = Request::delete(a.head().uri.path_and_query().unwrap().as_str());
        http1 = http1.header("host", a.authority.to_uppercase());
        prop_assert_eq!(identity(&rules, &http1.body(()).unwrap().into_parts().0), identity(&rules, &a.head()));
    }

    /// By conditions, a URI has several rules, and a purge of it reaches the entries of all of them.
    #[test]
    fn a_purge_reaches_entries_that_conditions_divide((a, b) in two()) {
        let rules = with_conditions().build().unwrap();
        let noted = |asked: &AskedFor| {
            let mut head = asked.head();
            rules.note(&mut head);
            head
        };
        let (first, second) = (noted(&a), noted(&b));
        let key = rules.key(&first);
        prop_assert_eq!(&key, &rules.key(&a.head()), "noted or not");
        let mut sent = noted(&a);
        rules.normalise(&mut sent);
        rules.prepare(&mut sent);
        if key.is_none() {
            return Ok(());
        }
        // A `?` without a query is dropped with what else is not in the key.
        if a.query.as_deref() != Some("") {
            prop_assert_eq!(&rules.key(&sent), &key, "whatever was removed");
        }
        let purged_by = |asked: &AskedFor| {
            let bare = AskedFor { method: Method::POST, headers: Vec::new(), tenant: None, ..asked.clone() }.head();
            let mut all = Vec::new();
            rules.identities(&bare.uri, None, &bare.extensions, &mut |named| all.push(named));
            all
        };
        prop_assert!(purged_by(&a).contains(&identity(&rules, &first)));
        if key == rules.key(&second) {
            let named = identity(&rules, &second);
            prop_assert_eq!(&named, &identity(&rules, &first));
            prop_assert!(named.is_none() || purged_by(&a).contains(&named));
        }
    }

    /// If servers could disagree whether a condition holds, there is no key.
    #[test]
    fn requests_that_share_a_key_are_alike_in_what_conditions_look_at((a, b) in two()) {
        let rules = builder([
            KeyRule::any().when(When::new().cookies(["c=1"])),
            KeyRule::any().when(When::new().cookies(["c"])),
            KeyRule::any().when(When::new().headers(["x-c: 1"])),
        ]);
        let rules = rules.build().unwrap();
        let (a, b) = (AskedFor { query: None, ..a }, AskedFor { query: None, ..b });
        let keys = (rules.key(&a.head()), rules.key(&b.head()));
        if keys.0.is_some() && keys.0 == keys.1 {
            // The last rule is only reached without the cookie, and decides alone then.
            let cookies = |asked: &AskedFor| readings(asked)[..7].to_vec();
            prop_assert_eq!(cookies(&a), cookies(&b));
            if !cookies(&a).contains(&true) {
                prop_assert_eq!(&readings(&a)[7..], &readings(&b)[7..]);
            }
        }
    }

    /// What the origin sees of a request has the key that the request has.
    #[test]
    fn the_request_that_the_origin_sees_has_the_same_key(a in asked()) {
        let rules = builder([
            KeyRule::path("/a/{x}").keep_query(["a"]).sort_query(),
            KeyRule::path("/b?a={a}&b=1&u={u}"),
            KeyRule::any().ignore_query(["u*"]).drop_empty_query().headers(["accept-language"]),
        ]);
        let rules = rules.guard(Guard::new()).accept_language(["a", "b"]).accept_encoding(["a"]).build().unwrap();
        let mut head = a.head();
        head.headers.append("accept-language", "b;q=0.5, a-x;q=0.1".parse().unwrap());
        let key = rules.key(&head);
        rules.normalise(&mut head);
        prop_assert_eq!(&rules.key(&head), &key);
        rules.prepare(&mut head);
        prop_assert_eq!(rules.key(&head), key);
        let seen = head.clone();
        rules.normalise(&mut head);
        rules.prepare(&mut head);
        prop_assert_eq!((head.uri, head.headers), (seen.uri, seen.headers), "nothing is left to do");
    }

    /// Settings that are not about keys leave the default key.
    #[test]
    fn rules_that_only_store_leave_the_key_alone(a in asked()) {
        let rules = builder([KeyRule::any().store_authorized(true).tags(["t"])]).build().unwrap();
        prop_assert_eq!(rules.key(&a.head()), DefaultKey::new().key(&a.head()));
        prop_assert_eq!(identity(&rules, &a.head()), None);
    }

    /// No two rules ever make the same key, nor two editions of one.
    #[test]
    fn keys_of_different_rules_differ(a in asked(), b in asked()) {
        let rule = || KeyRule::any().keep_query(["a"]);
        let rules = [rule(), rule().sort_query(), KeyRule::any().keep_query(["a", "b"])];
        let keys = rules.map(|rule| builder([rule]).build().unwrap().key(&a.head()));
        let other = DefaultKey::new().key(&b.head());
        let known: Vec<_> = keys.iter().flatten().chain(&other).collect();
        prop_assert_eq!(known.iter().collect::<HashSet<_>>().len(), known.len());
    }

    #[test]
    fn any_request_is_taken_without_panic(path in "/[!-~]{0,30}", host in "[ -~]{0,10}", cookie in "[ -~]{0,20}") {
        let rules = all_kinds().guard(Guard::new()).rule(KeyRule::any().cookies(["a"])).build().unwrap();
        let request = Request::get(path).header("host", host).header("cookie", cookie).body(());
        if let Ok(request) = request {
            let mut head = request.into_parts().0;
            let _ = (rules.key(&head), identity(&rules, &head));
            rules.normalise(&mut head);
            rules.prepare(&mut head);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The stack agrees with a table of keys: a hit for every key that was requested before, and
    /// after an unsafe request to one spelling, a miss for all others of the same identity.
    #[test]
    fn a_stack_serves_by_key_and_invalidates_by_identity(all in proptest::collection::vec((asked(), any::<bool>()), 1..24)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let rules = all_kinds().build().unwrap();
            let origin = ScriptedOrigin::with_future(|n, _| async move { response(&[], n.to_string()) });
            let service = ReadThroughLayer::builder(store()).key(rules.clone()).rules(fixed(60_000)).build().unwrap().layer(origin.clone());
            let mut stored: HashMap<CacheKey, (Option<CacheKey>, String, String)> = HashMap::new();
            for (asked, is_unsafe) in all {
                // Cookies are credentials, which share nothing where no rule names them.
                let headers = asked.headers.iter().filter(|(name, _)| *name != "cookie").cloned().collect();
                let asked = AskedFor { method: Method::GET, headers, ..asked };
                let (head, uri) = (asked.head(), asked.head().uri.to_string());
                let (key, identity) = (rules.key(&head), identity(&rules, &head));
                if is_unsafe {
                    call(&service, Request::post(uri).body(crate::support::Body::empty()).unwrap()).await;
                    let target = format!("{}{}", asked.authority, head.uri.path_and_query().unwrap());
                    stored.retain(|_, (other, uri, _)| match (&identity, &other) {
                        (None, None) => *uri != target,
                        (ours, theirs) => ours != *theirs,
                    });
                    continue;
                }
                let target = format!("{}{}", asked.authority, head.uri.path_and_query().unwrap());
                let request = Request::from_parts(head, crate::support::Body::empty());
                let answer = String::from_utf8(call(&service, request).await.1.to_vec()).unwrap();
                let calls = origin.calls().to_string();
                match key {
                    None => prop_assert_eq!(answer, calls),
                    Some(key) => match stored.get(&key) {
                        Some((.., known)) => prop_assert_eq!(&answer, known),
                        None => {
                            prop_assert_eq!(&answer, &calls);
                            stored.insert(key, (identity, target, answer));
                        }
                    },
                }
            }
            Ok(())
        })?;
    }
}

/// Rules that are for paths in any spelling, for queries with more and with less, and for hosts that are one.
/// Nothing that is not in the key reaches the origin.
fn wide() -> KeyRules {
    let rules = builder([
        KeyRule::path("/c/{**tree}").bypass(),
        KeyRule::paths(["/a/{**tree}", "/b/{x}.css"]).ignore_path_case().keep_query(["a"]),
        KeyRule::path("/\u{e9},/{x}?a={a}&b={_?}").ignore_query(["x"]),
        KeyRule::path("/{*file}.css").tags(["{file}"]),
        KeyRule::path("/b/{x}?b={_}&a=1"),
        KeyRule::path("/d/{x}").sort_query().headers(["x-a"]),
    ]);
    rules.ignore_query(["u_*"]).same_hosts(["h", "hh", "h:8"]).build().unwrap()
}

fn for_wide() -> impl Strategy<Value = AskedFor> {
    let segment = prop_oneof![
        3 => "[abcdA]",
        1 => prop_oneof![Just("x.css"), Just("X.CSS"), Just(".css"), Just(""), Just("%61"), Just("a%2Fb"), Just("..")].prop_map(str::to_owned),
        2 => prop_oneof![Just("\u{e9},"), Just("%C3%A9,"), Just("%c3%a9%2C"), Just("%C3%A9%2c"), Just("%C3%89,")].prop_map(str::to_owned),
    ];
    let path =
        proptest::collection::vec(segment, 1..4).prop_map(|segments| format!("/{}", segments.join("/")));
    let pair = prop_oneof![
        4 => "[abx]=[12]",
        1 => prop_oneof![Just("u_1=1"), Just("u_=%26a"), Just("%75_=1"), Just("U_1=1"), Just("A=1"), Just("b[]=1"), Just("a"), Just("a=%31"), Just("u_;a")].prop_map(str::to_owned),
    ];
    let query = proptest::option::of(proptest::collection::vec(pair, 1..4).prop_map(|pairs| pairs.join("&")));
    let authority =
        prop_oneof![Just("h"), Just("hh"), Just("HH:80"), Just("h:8"), Just("i")].prop_map(str::to_owned);
    let headers = proptest::collection::vec(("[12]").prop_map(|value| ("x-a", value)), 0..2);
    (authority, path, query, headers).prop_map(|(authority, path, query, headers)| AskedFor {
        method: Method::GET,
        scheme: "http",
        authority,
        path,
        query,
        headers,
        tenant: None,
    })
}

/// Two of which the second differs from the first in some of its parts.
fn two_for_wide() -> impl Strategy<Value = (AskedFor, AskedFor)> {
    (for_wide(), for_wide(), 0..8_u8).prop_map(|(a, b, differs)| {
        let pick = |bit: u8| differs & (1 << bit) != 0;
        let second = AskedFor {
            authority: if pick(0) { b.authority } else { a.authority.clone() },
            path: if pick(1) { b.path } else { a.path.clone() },
            query: if pick(2) { b.query } else { a.query.clone() },
            ..a.clone()
        };
        (a, second)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    /// No framework tells apart two requests that are equal to it.
    #[test]
    fn requests_that_share_a_key_are_one_request_to_the_origin((a, b) in two_for_wide()) {
        let rules = wide();
        let seen = |asked: &AskedFor| {
            let mut head = asked.head();
            let key = rules.key(&head)?;
            rules.normalise(&mut head);
            rules.prepare(&mut head);
            Some((key, head.uri, head.headers))
        };
        if let (Some(first), Some(second)) = (seen(&a), seen(&b))
            && first.0 == second.0
        {
            prop_assert_eq!((&first.1, &first.2), (&second.1, &second.2));
            let name = |asked: &AskedFor| identity(&rules, &asked.head());
            prop_assert_eq!(name(&a), name(&b));
        }
    }

    /// Globally ignored parameters and host aliases make no difference under any rule.
    #[test]
    fn ignored_parameters_make_no_difference(a in for_wide(), at_end in any::<bool>()) {
        let rules = wide();
        let query = match (&a.query, at_end) {
            (None, _) => "u_x=1".to_owned(),
            (Some(query), true) => format!("{query}&u_x=1"),
            (Some(query), false) => format!("u_x=1&{query}"),
        };
        let is_clear = !a.query.as_ref().is_some_and(|query| query.contains(';'));
        let more = AskedFor { query: Some(query), ..a.clone() };
        let (key, with_more) = (rules.key(&a.head()), rules.key(&more.head()));
        if is_clear && with_more.is_some() {
            prop_assert_eq!(&key, &with_more);
            prop_assert_eq!(identity(&rules, &a.head()), identity(&rules, &more.head()));
        }
        let elsewhere = AskedFor { authority: "hh".to_owned(), ..a.clone() };
        prop_assert_eq!(rules.key(&elsewhere.head()) == key, a.authority != "i" || key.is_none());
    }

    /// The position of a rule does not count, as long as it applies to the same requests.
    #[test]
    fn keys_do_not_depend_on_the_place_of_a_rule(a in asked()) {
        let all = [
            KeyRule::path("/a/{x}").keep_query(["a"]),
            KeyRule::path("/b/{_}/{x}").forward_unkeyed(),
            KeyRule::path("/ab/{**rest}").headers(["x-a"]),
        ];
        let [one, two, three] = all.clone();
        let other = builder([three, KeyRule::path("/bb/{**rest}").bypass(), one, two]).build().unwrap();
        let key = builder(all).build().unwrap().key(&a.head());
        let has_readings = a.path.contains("//") || a.path.contains(['%', ';', '.']);
        if !has_readings && !a.path.starts_with("/bb") {
            prop_assert_eq!(key, other.key(&a.head()));
        }
    }
}
