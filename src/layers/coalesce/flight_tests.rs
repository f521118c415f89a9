use super::*;
use crate::http::storing::Unshareable;

#[test]
fn nobody_boards_a_flight_that_broke_off() {
    let flight = new_flight();
    let first = flight.subscribe(2);
    assert!(matches!(first, Subscription::Aboard(_)));
    flight.end(Err(BodyError::Cancelled));
    assert!(matches!(flight.subscribe(2), Subscription::Closed));

    let complete = new_flight();
    complete.end(Ok(()));
    assert!(matches!(complete.subscribe(2), Subscription::Aboard(_)), "what is there can be read");
}

fn new_flight() -> Arc<Flight> {
    let room = Room { max_held: 1024, max_total: 4096, budget: Arc::default() };
    Arc::new(Flight::new(room))
}

fn aboard(flight: &Arc<Flight>) -> Subscriber {
    match flight.subscribe(9) {
        Subscription::Aboard(caller) => caller,
        Subscription::Full | Subscription::Closed => unreachable!(),
    }
}

#[test]
fn a_body_is_whole_once_all_of_it_is_there_in_one_piece_of_the_length_that_was_told() {
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
fn only_who_is_left_alone_takes_the_fields_without_a_copy() {
    let response = http::Response::builder().header("retry-after", "1").body(String::new()).unwrap();
    let flight = new_flight();
    let verdict = Verdict::Unshareable(Unshareable::Error);
    let head = Head::new(&response, response.headers().clone(), None, verdict);
    flight.settle(Outcome::Head(Box::new(head)));
    let (mut first, mut second) = (aboard(&flight), aboard(&flight));
    assert_eq!(first.take_fields(), *response.headers(), "the slot has it too");
    drop(flight);
    assert_eq!(first.take_fields(), *response.headers(), "so has another caller");
    drop(first);
    assert_eq!(second.take_fields(), *response.headers());
    assert!(second.take_fields().is_empty());
}
