//! Purges by clients without access.

use http::{Request, StatusCode, request::Parts};
use tower::ServiceExt;
use tower_readthrough::{
    LookupLayer,
    purge::{Access, PurgeService},
};

use crate::support::{Body, store};

/// A check by the cookies that the browser of a visitor sends along.
fn by_cookie(head: &Parts) -> Access {
    if head.headers.contains_key("cookie") { Access::Granted } else { Access::Unauthenticated }
}

/// What comes of a request with the cookies of the visitor and these fields.
async fn forged(method: &str, fields: &[(&str, &str)]) -> StatusCode {
    let service = PurgeService::new(LookupLayer::new(store()).purge(), by_cookie);
    let mut request = Request::builder().method(method).uri("/purge").header("host", "cms.example");
    request = request.header("cookie", "session=visitor");
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let request = request.body(Body::from(r#"{"all": true}"#)).unwrap();
    service.oneshot(request).await.unwrap().status()
}

const JSON: (&str, &str) = ("content-type", "application/json");

#[tokio::test]
async fn cross_site_forgery_by_a_form_or_a_simple_request() {
    let types = [
        "text/plain",
        "text/plain;application/json",
        "text/plain; charset=utf-8",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/jsonx",
        "",
    ];
    for content_type in types {
        let said = forged("POST", &[("content-type", content_type)]).await;
        assert_eq!(said, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{content_type}");
    }
    assert_eq!(forged("POST", &[]).await, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert_eq!(forged("POST", &[JSON, ("content-type", "text/plain")]).await, 415);
    for content_type in ["application/json", "Application/JSON; charset=utf-8", "application/json ;a=b"] {
        assert_eq!(forged("POST", &[("content-type", content_type)]).await, StatusCode::OK, "{content_type}");
    }
}

#[tokio::test]
async fn cross_site_forgery_by_what_a_lenient_cors_policy_lets_through() {
    for method in ["POST", "PURGE"] {
        for fields in [
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
            ("sec-fetch-site", ""),
            ("origin", "https://evil.example"),
            ("origin", "https://cms.example.evil.example"),
            ("origin", "https://cms.example:8443"),
            ("origin", "null"),
            ("origin", ""),
        ] {
            assert_eq!(forged(method, &[JSON, fields]).await, StatusCode::FORBIDDEN, "{method} {fields:?}");
        }
        let both = [JSON, ("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site")];
        assert_eq!(forged(method, &both).await, StatusCode::FORBIDDEN, "{method}");
        // A dashboard of the same origin, one behind a proxy that changes the host, and no browser.
        for fields in [
            ("sec-fetch-site", "same-origin"),
            ("sec-fetch-site", "none"),
            ("origin", "https://cms.example"),
            ("origin", "https://CMS.example"),
            ("user-agent", "curl/8"),
        ] {
            assert_eq!(forged(method, &[JSON, fields]).await, StatusCode::OK, "{method} {fields:?}");
        }
        let proxied = [JSON, ("sec-fetch-site", "same-origin"), ("origin", "https://shown.example")];
        assert_eq!(forged(method, &proxied).await, StatusCode::OK, "{method}");
    }
}
