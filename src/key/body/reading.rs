//! Bodies that are read as JSON or GraphQL.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header, request::Parts};

use super::{graphql::Persisted, json::JsonShape};
use crate::{
    http::{fields, request_fields::first_line},
    key::uri::original_uri,
};

/// How the bodies for a rule are read.
#[derive(Debug, Default)]
pub(in crate::key) struct Reading {
    /// Set if only queries are reads.
    pub(in crate::key) graphql: Option<Persisted>,
    pub(in crate::key) json: Option<JsonShape>,
    /// Whether the origin gets the body as received.
    pub(in crate::key) forwards: bool,
}

/// A body in the form that its key holds.
pub(in crate::key) struct Form {
    pub(in crate::key) keyed: Bytes,
    /// What the origin receives.
    pub(super) sent: Bytes,
    pub(in crate::key) is_normal: bool,
}

impl Form {
    pub(super) fn of_bytes(body: &Bytes) -> Self {
        Self { keyed: body.clone(), sent: body.clone(), is_normal: false }
    }

    /// Corrects `Content-Length` for the body that is sent.
    pub(super) fn tell_length(&self, headers: &mut HeaderMap) {
        if fields::has(headers, &header::CONTENT_LENGTH) {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(self.sent.len()));
        }
    }
}

/// Fields about the bytes of a body, which would be wrong for other bytes.
const SUMS: [&str; 6] =
    ["content-digest", "content-md5", "digest", "repr-digest", "signature", "x-amz-content-sha256"];

/// Parameters that servers read from the query of a GraphQL request, some of them before the body.
const OF_GRAPHQL: [&str; 8] =
    ["documentid", "doc_id", "extensions", "id", "mutation", "operationname", "query", "variables"];

impl Reading {
    /// Whether the request is certainly a read.
    pub(super) fn is_read(&self, head: &Parts, body: &[u8]) -> bool {
        self.graphql.as_ref().is_none_or(|persisted| {
            is_json(&head.headers, |media_type| media_type == "application/json")
                && [&head.uri, original_uri(head)].iter().all(|uri| uri.query().is_none_or(is_plain))
                && persisted.is_read(body)
        })
    }

    pub(super) fn form(&self, head: &Parts, body: &Bytes) -> Form {
        let is_json = |own: &str| own == "application/json" || own.ends_with("+json");
        let json = self.json.as_ref().filter(|_| self::is_json(&head.headers, is_json));
        let is_summed_up = SUMS.iter().any(|name| fields::has(&head.headers, &HeaderName::from_static(name)));
        match json.filter(|_| !is_summed_up).and_then(|json| json.apply(body)) {
            Some(form) => {
                let keyed = Bytes::from(form);
                let sent = if self.forwards { body.clone() } else { keyed.clone() };
                Form { keyed, sent, is_normal: true }
            }
            None => Form::of_bytes(body),
        }
    }
}

/// Whether a query has no parameter that servers read as a part of a GraphQL request.
fn is_plain(query: &str) -> bool {
    !query.contains(['%', '+', ';'])
        && query.split('&').all(|pair| {
            let name = pair.split(['=', '[']).next().unwrap_or_default();
            !OF_GRAPHQL.iter().any(|own| own.eq_ignore_ascii_case(name))
        })
}

/// Whether the content is declared as JSON in UTF-8 with an accepted media type.
fn is_json(headers: &HeaderMap, is: impl Fn(&str) -> bool) -> bool {
    let Some((line, false)) = first_line(headers, &header::CONTENT_TYPE) else {
        return false;
    };
    let Ok(text) = line.to_str() else { return false };
    let mut parts = text.split(';').map(|part| part.trim().to_ascii_lowercase());
    let is_utf8 = |parameter: String| match parameter.split_once('=') {
        Some((name, value)) if name.trim() == "charset" => {
            matches!(value.trim().trim_matches('"'), "utf-8" | "utf8")
        }
        // Some servers also read `charset*` (RFC 2231 §4).
        _ => !parameter.starts_with("charset"),
    };
    !fields::has(headers, &header::CONTENT_ENCODING)
        && parts.next().is_some_and(|own| is(&own))
        && parts.all(is_utf8)
}
