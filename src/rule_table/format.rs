//! The table as written, and the requests and responses of its rows.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header, request::Parts,
};
use http_body_util::Full;
use serde::{Deserialize, Deserializer};

use crate::{
    http::rules::Rules,
    key::{
        KeyExtractor, KeyRules,
        rules::{self, Named, RowExtensions, Span},
    },
    request_body::RequestBody,
};

/// Requests and their expected results by key rules; see the [module](super).
///
/// Deserialised from JSON, or any other format that serde supports.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, remote = "Self")]
pub struct RuleTable {
    host: Option<String>,
    headers: HeaderFields,
    response: Option<HeaderFields>,
    #[serde(deserialize_with = "numbered_rows")]
    rows: Vec<Row>,
    #[serde(skip)]
    rules: Rules,
}

impl RuleTable {
    /// The rules for storing that the key rules override, as in
    /// [`ReadThroughBuilder::rules`](crate::ReadThroughBuilder::rules). Default: [`Rules::new`].
    #[must_use]
    pub fn rules(mut self, rules: Rules) -> Self {
        self.rules = rules;
        self
    }

    pub(super) fn rows(&self) -> &[Row] {
        &self.rows
    }

    pub(super) fn storing(&self) -> &Rules {
        &self.rules
    }
}

/// Header fields by name. `None`: the field is absent.
pub(super) type HeaderFields = BTreeMap<String, Option<Lines>>;

/// The lines of a field.
#[derive(Clone, Debug)]
pub(super) struct Lines(Vec<String>);

impl Lines {
    pub(super) fn as_slice(&self) -> &[String] {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Lines {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        rules::one_or_more(deserializer).map(Self)
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, remote = "Self")]
pub(super) struct Row {
    request: String,
    host: Option<String>,
    headers: HeaderFields,
    body: Option<serde_json::Value>,
    extensions: BTreeMap<String, String>,
    status: Option<u16>,
    response: Option<HeaderFields>,
    why: Option<String>,
    #[serde(deserialize_with = "present")]
    pub(super) rule: Option<Option<String>>,
    pub(super) entry: Option<String>,
    pub(super) bypass: Option<String>,
    pub(super) ttl: Option<Span>,
    pub(super) stale_while_revalidate: Option<Span>,
    pub(super) stale_if_error: Option<Span>,
    pub(super) not_stored: Option<String>,
    pub(super) tags: Option<Vec<String>>,
    pub(super) purged_by: Vec<String>,
    pub(super) kept_by: Vec<String>,
    pub(super) origin: Option<String>,
    pub(super) origin_headers: HeaderFields,
    pub(super) stored_headers: HeaderFields,
}

impl Row {
    /// Method and target of the request.
    pub(super) fn request(&self) -> &str {
        &self.request
    }

    /// What errors call the row.
    pub(super) fn label(&self) -> String {
        let remark = self.why.as_ref().map(|why| format!(", {why}")).unwrap_or_default();
        format!("`{}`{remark}", self.request)
    }

    pub(super) fn expects_something(&self) -> bool {
        let Self { rule, entry, bypass, ttl, not_stored, tags, purged_by, kept_by, origin, .. } = self;
        let Self { stale_while_revalidate, stale_if_error, origin_headers, stored_headers, .. } = self;
        let has_fields = !(origin_headers.is_empty() && stored_headers.is_empty());
        rule.is_some()
            || [entry, bypass, not_stored, origin].iter().any(|text| text.is_some())
            || [ttl, stale_while_revalidate, stale_if_error].iter().any(|span| span.is_some())
            || tags.is_some()
            || has_fields
            || !(purged_by.is_empty() && kept_by.is_empty())
    }
}

/// Tells `null` from an absent field.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<String>>, D::Error> {
    Deserialize::deserialize(deserializer).map(Some)
}

fn numbered_rows<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Row>, D::Error> {
    rules::numbered(deserializer, "row")
}

// The derived functions have the same names, and no field names in their errors.
impl<'de> Deserialize<'de> for RuleTable {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::deserialize(Named::new(deserializer))
    }
}

impl<'de> Deserialize<'de> for Row {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::deserialize(Named::new(deserializer))
    }
}

/// A request, and the response of the service to it.
pub(super) struct RowExchange {
    method: Method,
    target: http::Uri,
    headers: HeaderMap,
    extensions: RowExtensions,
    body: Bytes,
    response: ServiceResponse,
}

#[derive(Clone)]
pub(super) struct ServiceResponse {
    status: StatusCode,
    headers: HeaderMap,
}

impl ServiceResponse {
    pub(super) fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The response to a request of this method.
    pub(super) fn to_response(&self, method: &Method) -> Response<Full<Bytes>> {
        let is_empty = *method == Method::HEAD || [204, 304].contains(&self.status.as_u16());
        let body = if is_empty { Bytes::new() } else { Bytes::from_static(b"x") };
        let mut response = Response::new(Full::new(body));
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers.clone();
        response
    }
}

impl RowExchange {
    pub(super) fn of(row: &Row, table: &RuleTable) -> Result<Self, String> {
        let (method, target) =
            row.request.split_once(' ').ok_or("`request` must be a method and a target, like `GET /`")?;
        let method = method.parse().map_err(|_| format!("`request`: `{method}` is not a method"))?;
        let target =
            target.parse().map_err(|error| format!("`request`: `{target}` is not a target: {error}"))?;
        let mut fields = table.headers.clone();
        fields.extend(row.headers.iter().map(|(name, lines)| (name.to_ascii_lowercase(), lines.clone())));
        let mut headers = header_map(&fields).map_err(|reason| format!("`headers`: {reason}"))?;
        if let Some(host) = row.host.as_ref().or(table.host.as_ref()) {
            let value = HeaderValue::from_str(host).map_err(|_| format!("`host`: `{host}` is not a host"))?;
            headers.entry(header::HOST).or_insert(value);
        }
        let body = match &row.body {
            None => Bytes::new(),
            Some(serde_json::Value::String(text)) => Bytes::from(text.clone()),
            Some(json) => Bytes::from(json.to_string()),
        };
        let response = row.response.as_ref().or(table.response.as_ref());
        let fields =
            response.map(header_map).transpose().map_err(|reason| format!("`response`: {reason}"))?;
        let status = row.status.unwrap_or(200);
        let status =
            StatusCode::from_u16(status).map_err(|_| format!("`status`: {status} is not a status code"))?;
        let response = ServiceResponse { status, headers: fields.unwrap_or_default() };
        let extensions = RowExtensions::new(row.extensions.clone());
        Ok(Self { method, target, headers, extensions, body, response })
    }

    pub(super) fn response(&self) -> &ServiceResponse {
        &self.response
    }

    /// The URL of a path at the host of the request.
    pub(super) fn url_of(&self, rules: &KeyRules, path: &str) -> String {
        let scheme = rules.assumed_scheme().map_or("http", |scheme| scheme.as_str());
        let host = self.headers.get(header::HOST).and_then(|host| host.to_str().ok());
        format!("{scheme}://{}{path}", host.or(self.target.host()).unwrap_or_default())
    }

    pub(super) fn head(&self) -> Parts {
        self.request().into_parts().0
    }

    pub(super) fn request(&self) -> Request<RequestBody<Full<Bytes>>> {
        let body = RequestBody::new(Full::new(self.body.clone()));
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.target.clone();
        *request.headers_mut() = self.headers.clone();
        request.extensions_mut().insert(self.extensions.clone());
        request
    }
}

fn header_map(fields: &HeaderFields) -> Result<HeaderMap, String> {
    let mut map = HeaderMap::new();
    for (name, lines) in fields {
        let field =
            HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("`{name}` is not a field name"))?;
        for line in lines.iter().flat_map(|lines| lines.as_slice()) {
            let value = HeaderValue::from_bytes(line.as_bytes())
                .map_err(|_| format!("`{line}` cannot be the value of `{name}`"))?;
            map.append(field.clone(), value);
        }
    }
    Ok(map)
}
