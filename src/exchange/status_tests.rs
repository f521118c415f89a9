use super::*;

#[test]
fn what_is_written_out_for_hits_is_what_the_library_writes() {
    let stale = [Stale::WhileRevalidating, Stale::IfError, Stale::AsRequested].map(CacheStatus::stale);
    for status in stale.into_iter().chain([CacheStatus::hit()]) {
        assert_eq!(Some(status.to_value()), status.serialize());
    }
    let miss = CacheStatus::forwarded(Forward::UriMiss).stored(true).collapsed();
    assert_eq!(miss.to_value(), "tower-readthrough;fwd=uri-miss;stored;collapsed");
    let alone = CacheStatus::forwarded(Forward::Bypass).unshared(NotStored::NoStore);
    assert_eq!(alone.to_value(), "tower-readthrough;fwd=bypass;detail=no-store");
    assert_eq!(alone.to_string(), "fwd=bypass; detail=no-store");
}

#[test]
fn members_of_other_caches_stay_in_front_of_ours() {
    let mut response = Response::new(());
    for other in ["Origin;hit", "tower-readthrough;hit, Other;hit"] {
        response.headers_mut().append(CACHE_STATUS, HeaderValue::from_static(other));
    }
    let others = ["Origin;hit", "tower-readthrough;hit, Other;hit"];
    for status in [CacheStatus::hit(), CacheStatus::stale(Stale::IfError)] {
        status.mark(&mut response);
        let values: Vec<_> = response.headers().get_all(CACHE_STATUS).iter().cloned().collect();
        assert_eq!(values[..2], others);
        assert_eq!(values[2..], [status.to_value()], "one of ours, the last that was said");
    }
    CacheStatus::unmark(response.headers_mut());
    let values: Vec<_> = response.headers().get_all(CACHE_STATUS).iter().collect();
    assert_eq!(values, others);
}

#[test]
fn a_hit_is_told_by_its_field_alone_and_never_by_the_same_text_from_elsewhere() {
    let mut response = Response::new(());
    for other in ["Origin;hit", "tower-readthrough;hit"] {
        let arrived = HeaderValue::from_bytes(other.as_bytes()).unwrap();
        response.headers_mut().append(CACHE_STATUS, arrived);
        assert_eq!(CacheStatus::of(&response), None, "{other}");
    }
    let in_second_tier = CacheStatus::hit().hit_in_second_tier();
    for status in [CacheStatus::hit(), CacheStatus::stale(Stale::AsRequested), in_second_tier] {
        let mut response = Response::new(());
        response.headers_mut().append(CACHE_STATUS, CacheStatus::hit().to_value());
        let mut response = status.serve(response);
        assert!(response.extensions().is_empty());
        assert_eq!(CacheStatus::of(&response), Some(status));
        CacheStatus::hide(&mut response);
        assert!(response.headers().is_empty());
        assert_eq!(CacheStatus::of(&response), Some(status), "it stays in the extensions");
    }
    let purged_here = CacheStatus::lost(Lost::Purged).hit_in_second_tier();
    let mut response = Response::new(());
    response.headers_mut().append(CACHE_STATUS, CacheStatus::hit().to_value());
    let response = purged_here.serve(response);
    assert_eq!(response.headers()[CACHE_STATUS], in_second_tier.to_value());
    assert_eq!(CacheStatus::of(&response), Some(purged_here), "the field does not say all of it");
}

#[test]
fn what_is_stored_is_told_by_its_field_and_all_else_by_an_extension() {
    let arrived = HeaderValue::from_bytes(b"tower-readthrough;fwd=miss;stored").unwrap();
    let mut response = Response::new(());
    response.headers_mut().append(CACHE_STATUS, arrived);
    assert_eq!(CacheStatus::of(&response), None, "it came from elsewhere");
    let stored = CacheStatus::forwarded(Forward::Miss).stored(true);
    let alone = CacheStatus::forwarded(Forward::Miss).unshared(NotStored::Private);
    for (status, has_extension) in
        [(stored, false), (stored.collapsed(), false), (alone, true), (stored, true), (alone, true)]
    {
        status.mark(&mut response);
        assert_eq!(!response.extensions().is_empty(), has_extension);
        assert_eq!(CacheStatus::of(&response), Some(status), "the last one counts");
        assert_eq!(response.headers().get_all(CACHE_STATUS).iter().count(), 2);
    }
    response.extensions_mut().clear();
    stored.mark(&mut response);
    CacheStatus::hide(&mut response);
    assert_eq!(CacheStatus::of(&response), Some(stored), "it stays in the extensions");
}

#[test]
fn a_refusal_says_why_and_whether_the_origin_was_asked() {
    for (refused, says) in [
        (Refused::QueueFull, "detail=queue-full"),
        (Refused::QueueTimeout, "detail=queue-timeout"),
        (Refused::TooManyWaiters, "detail=too-many-waiters"),
        (Refused::NotStored, "detail=not-stored"),
        (Refused::WaitTimeout, "fwd=stale; detail=wait-timeout"),
        (Refused::FetchAborted, "fwd=stale; detail=fetch-aborted"),
    ] {
        let asked = CacheStatus::forwarded(Forward::Stale);
        let response = refused.to_response::<()>(std::time::Duration::ZERO, asked);
        let status = CacheStatus::of(&response).unwrap();
        assert_eq!((&*status.to_string(), status.is_hit()), (says, false));
        assert_eq!(response.extensions().get(), Some(&refused));
        assert_eq!(
            response.headers()[CACHE_STATUS],
            format!("tower-readthrough;{}", says.replace("; ", ";"))
        );
    }
}

#[test]
fn what_is_written_out_is_what_would_be_said() {
    for &why in Forward::ALL {
        for storing in [Storing::No, Storing::Unsure, Storing::Yes] {
            for (is_collapsed, forward_status) in
                [false, true].into_iter().flat_map(|is| [(is, None), (is, Some(StatusCode::NOT_MODIFIED))])
            {
                let status =
                    CacheStatus { storing, is_collapsed, forward_status, ..CacheStatus::forwarded(why) };
                assert_eq!(status.to_value(), status.serialize().unwrap());
            }
        }
    }
    for (status, value) in &WRITTEN {
        assert_eq!(status.serialize().as_ref(), Some(value));
    }
    for (why, values) in &UNSURE {
        let status = CacheStatus::forwarded(*why).storing(true, false);
        assert_eq!([status.unsure(), status.collapsed().unsure()], [Some(&values[0]), Some(&values[1])]);
        assert!(!status.to_string().contains("stored"), "{status}");
        // It is not taken for what says the same of another response.
        for value in values {
            assert_eq!(CacheStatus::shown(&HeaderMap::from_iter([(CACHE_STATUS, value.clone())])), None);
        }
        let mut response = Response::new(());
        status.mark(&mut response);
        assert_eq!(CacheStatus::of(&response), Some(status));
    }
    for why in Unkeyed::ALL {
        let status = CacheStatus::unkeyed(*why);
        assert_eq!(status.written().cloned(), status.serialize());
    }
}
