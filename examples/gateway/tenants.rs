//! Authentication by bearer tokens: in the place of what an application has.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::{HeaderName, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

/// What a client belongs to: in the extensions of each request that is let in, and in the keys.
#[derive(Clone)]
pub(crate) struct Tenant(pub(crate) String);

pub(crate) type Tokens = Arc<[(String, Tenant)]>;

pub(crate) const SAMPLES: [&str; 2] = ["acme-secret=acme", "globex-secret=globex"];

pub(crate) const UNAUTHORIZED: (StatusCode, [(HeaderName, &str); 1]) =
    (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Bearer")]);

pub(crate) fn parse(pair: &str) -> Result<(String, Tenant), &'static str> {
    match pair.split_once('=') {
        Some((token, tenant)) if !token.is_empty() && !tenant.is_empty() => {
            Ok((token.to_owned(), Tenant(tenant.to_owned())))
        }
        _ => Err("write it as TOKEN=TENANT"),
    }
}

pub(crate) async fn authenticate(State(tokens): State<Tokens>, mut request: Request, next: Next) -> Response {
    let given = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let given = given.and_then(|value| value.strip_prefix("Bearer "));
    let Some((_, tenant)) = tokens.iter().find(|(token, _)| Some(token.as_str()) == given) else {
        return UNAUTHORIZED.into_response();
    };
    request.extensions_mut().insert(tenant.clone());
    next.run(request).await
}
