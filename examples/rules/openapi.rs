//! Drafts a document of key rules from an OpenAPI description.

#[path = "openapi/order.rs"]
mod order;
#[path = "openapi/pattern.rs"]
mod pattern;

use std::{collections::BTreeMap, error::Error};

use serde::Serialize;
use serde_json::Value;

use self::{order::in_order, pattern::Pattern};

const METHODS: [&str; 2] = ["get", "head"];

/// Fields that the cache reads, that cannot be in a key, or that are left to `Vary`.
const NOT_KEYED: [&str; 16] = [
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "authorization",
    "connection",
    "content-type",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "range",
    "te",
    "upgrade",
];

#[derive(Serialize)]
struct Document {
    guard: BTreeMap<String, String>,
    rules: Vec<Rule>,
}

#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Rule {
    name: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    host: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    method: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<Pattern>,
    #[serde(skip_serializing_if = "Option::is_none")]
    keep_query: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    headers: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cookies: Option<Vec<String>>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    bypass: bool,
}

/// Returns a document for the API that this text describes.
///
/// Each GET or HEAD without `security` has a rule that keys its parameters. All other requests are bypassed,
/// described or not.
pub(crate) fn document(api: &str) -> Result<String, Box<dyn Error>> {
    let api: Value = serde_json::from_str(api)?;
    let version = api["openapi"].as_str().unwrap_or_default();
    if !["3.0", "3.1"].iter().any(|known| version.starts_with(known)) {
        return Err("`openapi` must be 3.0 or 3.1; convert the description first".into());
    }
    let mut rules: BTreeMap<(String, Vec<String>, Vec<&str>), Rule> = BTreeMap::new();
    for (path, item) in api["paths"].as_object().into_iter().flatten() {
        for rule in rules_of(&api, path, resolved(&api, item))? {
            let shape = rule.path.as_ref().map(Pattern::shape).unwrap_or_default();
            let place = rules.entry((shape, rule.host.clone(), rule.method.clone()));
            place.and_modify(|other| other.merge(&rule)).or_insert(rule);
        }
    }
    let mut rules = in_order(rules.into_values().collect());
    rules.push(Rule { name: "what is not described".into(), bypass: true, ..Rule::default() });
    let document = Document { guard: BTreeMap::new(), rules };
    Ok(serde_json::to_string_pretty(&document)? + "\n")
}

/// The rules of one path at each of its servers, for each method.
fn rules_of(api: &Value, path: &str, item: &Value) -> Result<Vec<Rule>, String> {
    let mut rules = Vec::new();
    for method in METHODS {
        let operation = resolved(api, &item[method]);
        if !operation.is_object() {
            continue;
        }
        let name = operation["operationId"].as_str().map_or_else(|| format!("{method} {path}"), Into::into);
        for (host, base) in servers(api, item, operation) {
            let path = Some(Pattern::of_template(&format!("{base}{path}")));
            let host = host.into_iter().collect();
            rules.push(match is_secured(api, operation) {
                true => Rule { name: name.clone(), host, path, bypass: true, ..Rule::default() },
                false => Rule { host, path, method: alone(item), ..read(api, item, operation, &name)? },
            });
        }
    }
    Ok(rules)
}

/// The description of GET is also for HEAD, but not the reverse.
fn alone(item: &Value) -> Vec<&'static str> {
    if item["get"].is_null() { vec!["HEAD"] } else { Vec::new() }
}

fn read(api: &Value, item: &Value, operation: &Value, name: &str) -> Result<Rule, String> {
    let mut rule = Rule {
        name: name.into(),
        keep_query: Some(Vec::new()),
        cookies: Some(Vec::new()),
        ..Rule::default()
    };
    let own: Vec<&Value> = list(&operation["parameters"]).map(|parameter| resolved(api, parameter)).collect();
    let is_replaced =
        |other: &Value| own.iter().any(|own| own["name"] == other["name"] && own["in"] == other["in"]);
    let shared = list(&item["parameters"]).map(|parameter| resolved(api, parameter));
    for parameter in shared.filter(|parameter| !is_replaced(parameter)).chain(own.iter().copied()) {
        let Some(called) = parameter["name"].as_str() else {
            return Err(format!("a parameter of {name} has no name, or is in another file"));
        };
        rule.add(api, called, parameter);
    }
    Ok(rule)
}

impl Rule {
    fn add(&mut self, api: &Value, name: &str, parameter: &Value) {
        let lower = name.to_ascii_lowercase();
        match parameter["in"].as_str() {
            Some("query") if has_free_names(api, parameter) => self.keep_query = None,
            Some("query") => {
                // The members of an object are parameters too, `name[..]`.
                if let Some(keep) = &mut self.keep_query {
                    keep.push(name.into());
                }
            }
            Some("header") if !NOT_KEYED.contains(&&*lower) => self.headers.push(lower),
            Some("cookie") => self.cookies.get_or_insert_default().push(name.into()),
            _ => {}
        }
    }

    fn turn_into_bypass(&mut self) {
        let Self { name, host, path, .. } = std::mem::take(self);
        *self = Self { name, host, path, bypass: true, ..Self::default() };
    }

    /// Merges two rules for the same requests.
    fn merge(&mut self, other: &Self) {
        if self.bypass || other.bypass {
            return self.turn_into_bypass();
        }
        let join = |own: &mut Vec<String>, more: &[String]| {
            own.extend(more.iter().cloned());
            own.sort();
            own.dedup();
        };
        self.keep_query = match (self.keep_query.take(), &other.keep_query) {
            (Some(mut own), Some(more)) => {
                join(&mut own, more);
                Some(own)
            }
            _ => None,
        };
        join(&mut self.headers, &other.headers);
        join(self.cookies.get_or_insert_default(), other.cookies.as_deref().unwrap_or_default());
    }
}

/// Whether the properties of a parameter may be parameters of their own.
fn has_free_names(api: &Value, parameter: &Value) -> bool {
    let is_form = parameter["style"].as_str().is_none_or(|style| style == "form");
    let is_exploded = parameter["explode"].as_bool().unwrap_or(true);
    is_form && is_exploded && !parameter["schema"].is_null() && may_be_object(api, &parameter["schema"])
}

/// Whether a schema may be an object. It may be composed of others, or in another file.
fn may_be_object(api: &Value, schema: &Value) -> bool {
    let schema = resolved(api, schema);
    match &schema["type"] {
        Value::String(own) => own == "object",
        Value::Array(own) => own.iter().any(|own| own == "object"),
        _ => schema["enum"].is_null() && schema["const"].is_null(),
    }
}

/// Whether requests can have authorisation, even if it is optional.
fn is_secured(api: &Value, operation: &Value) -> bool {
    let own = operation.get("security").filter(|own| !own.is_null());
    let security = own.unwrap_or(&api["security"]);
    let is_no_list = !security.is_null() && !security.is_array();
    is_no_list
        || list(security).any(|requirement| requirement.as_object().is_none_or(|schemes| !schemes.is_empty()))
}

/// Hosts, if they are named, and the prefix of the path.
fn servers(api: &Value, item: &Value, operation: &Value) -> Vec<(Option<String>, String)> {
    let named = [operation, item, api].into_iter().find(|holder| list(&holder["servers"]).next().is_some());
    let servers = named.into_iter().flat_map(|holder| list(&holder["servers"]));
    let mut servers: Vec<_> = servers.filter_map(server).collect();
    if servers.is_empty() {
        servers.push((None, String::new()));
    }
    servers
}

fn server(server: &Value) -> Option<(Option<String>, String)> {
    let mut url = server["url"].as_str()?.to_owned();
    for (name, variable) in server["variables"].as_object().into_iter().flatten() {
        url = url.replace(&format!("{{{name}}}"), variable["default"].as_str()?);
    }
    let (host, path) = match url.split_once("//") {
        Some((scheme, rest)) if scheme.is_empty() || scheme.ends_with(':') => match rest.find('/') {
            Some(at) => (Some(rest[..at].to_owned()), rest[at..].to_owned()),
            None => (Some(rest.to_owned()), String::new()),
        },
        _ => (None, url),
    };
    Some((host, path.trim_end_matches('/').to_owned()))
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// Resolves a reference within the description.
fn resolved<'v>(api: &'v Value, value: &'v Value) -> &'v Value {
    let mut value = value;
    // References to references are rare; circles end here.
    for _ in 0..8 {
        match value["$ref"].as_str().and_then(|reference| reference.strip_prefix('#')) {
            Some(pointer) => value = api.pointer(pointer).unwrap_or(&Value::Null),
            None => break,
        }
    }
    value
}
