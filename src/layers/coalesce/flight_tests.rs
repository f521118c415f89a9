use super::*;
use crate::http::storing::NotStored;

#[test]
fn a_flight_that_broke_off_takes_no_subscribers() {
    let flight = new_flight();
    let first = flight.subscribe(2);
    assert!(matches!(first, Subscription::Subscribed(_)));
    flight.end(Err(BodyError::Cancelled));
    assert!(matches!(flight.subscribe(2), Subscription::Closed));

    let complete = new_flight();
    complete.end(Ok(()));
    assert!(matches!(complete.subscribe(2), Subscription::Subscribed(_)), "what is there can be read");
}

fn new_flight() -> Arc<Flight> {
    let room = Room { max_held: 1024, max_total: 4096, budget: Arc::default() };
    Arc::new(Flight::new(room, 1, Credentials::default(), None))
}

fn subscribed(flight: &Arc<Flight>) -> Subscriber {
    match flight.subscribe(9) {
        Subscription::Subscribed(subscriber) => subscriber,
        Subscription::Full | Subscription::Closed => unreachable!(),
    }
}

#[test]
fn a_complete_body_of_one_chunk_and_of_the_declared_length_is_whole() {
    let hello = || Bytes::from_static(b"hello");
    let flight = new_flight();
    flight.push_data(hello(), false);
    assert_eq!(flight.whole(5), None, "there may be more");
    flight.end(Ok(()));
    assert_eq!((flight.whole(5), flight.whole(4)), (Some(hello()), None));
    let [two, trailed, broken] = [(); 3].map(|()| new_flight());
    [&two, &trailed, &broken].iter().for_each(|flight| flight.push_data(hello(), false));
    two.push_data(Bytes::new(), true);
    trailed.push_trailers([(http::header::ETAG, "1".parse().unwrap())].into_iter().collect());
    trailed.end(Ok(()));
    broken.end(Err(BodyError::Cancelled));
    assert_eq!([two, trailed, broken].map(|flight| flight.whole(5)), [None, None, None]);
}

#[test]
fn the_last_to_hold_a_flight_takes_the_fields_without_a_copy() {
    let headers: HeaderMap = [(http::header::RETRY_AFTER, "1".parse().unwrap())].into_iter().collect();
    let flight = new_flight();
    let head = SharedHead {
        status: StatusCode::NOT_FOUND,
        version: Version::default(),
        headers: headers.clone(),
        shareability: Shareability::unshareable(NotStored::Status),
        came_about: None,
        size: None,
        refused: None,
    };
    flight.settle(FetchOutcome::Head(Box::new(head)));
    let (mut first, mut second) = (subscribed(&flight), subscribed(&flight));
    assert_eq!(first.take_headers(), headers, "the table has it too");
    drop(flight);
    assert_eq!(first.take_headers(), headers, "another subscriber has it too");
    drop(first);
    assert_eq!(second.take_headers(), headers);
    assert!(second.take_headers().is_empty());
}
