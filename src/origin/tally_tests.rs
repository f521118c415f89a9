use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use super::*;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Fails other keys at these milliseconds. Returns how many failures it took.
fn fails_at(tally: &mut Tally, start: Instant, at: impl IntoIterator<Item = u64>) -> Option<usize> {
    let mut verdicts = at.into_iter().enumerate().map(|(key, at)| {
        let now = start + ms(at);
        tally.failure(Some(key as u64), now, now).is_streak
    });
    verdicts.position(|is_streak| is_streak).map(|before| before + 1)
}

#[test]
fn five_in_a_row_count_once_the_first_is_a_second_ago() {
    let start = Instant::now();
    let took = |at: &[u64]| fails_at(&mut Tally::new(start), start, at.iter().copied());
    assert_eq!(took(&[0, 10, 20, 30, 1_000]), Some(5));
    assert_eq!(took(&[0, 10, 20, 30, 999, 1_000]), Some(6));
    assert_eq!(took(&[0, 500, 1_000, 2_000]), None);
    assert_eq!(took(&[5_000, 5_010, 5_020, 5_030, 5_999]), None);
}

#[test]
fn twenty_in_a_row_count_at_once() {
    let start = Instant::now();
    assert_eq!(fails_at(&mut Tally::new(start), start, [0; 19]), None);
    assert_eq!(fails_at(&mut Tally::new(start), start, [0; 30]), Some(20));
}

#[test]
fn a_success_begins_the_streak_anew() {
    let start = Instant::now();
    let mut tally = Tally::new(start);
    assert_eq!(fails_at(&mut tally, start, [0, 1, 2, 3]), None);
    tally.success(start + ms(500));
    let at = start + ms(5_000);
    let verdicts: Vec<_> = (10..15)
        .map(|key| tally.failure(Some(key), at + ms(key - 10), at + ms(key - 10)).is_streak)
        .collect();
    assert_eq!(verdicts, [false; 5], "the first of them is not a second ago");
}

#[test]
fn a_key_counts_once() {
    let start = Instant::now();
    let mut tally = Tally::new(start);
    let fails = (0..60).map(|n| tally.failure(Some(1), start, start + ms(n * 150)));
    assert!(fails.into_iter().all(|verdict| verdict == Verdict::default()));
    let fails = (0..20).map(|n| tally.failure(None, start, start + ms(n)).is_streak);
    assert!(fails.into_iter().any(|is_streak| is_streak), "without a key each counts");
}

#[test]
fn a_failure_that_began_before_the_last_success_is_not_one_in_a_row() {
    let start = Instant::now();
    let mut tally = Tally::new(start);
    tally.success(start + ms(2_000));
    let mut fails = |began: u64| {
        let verdicts = (0..48).map(|key| {
            tally.failure(Some(began * 100 + key), start + ms(began), start + ms(3_000)).is_streak
        });
        verdicts.into_iter().filter(|is_streak| *is_streak).count()
    };
    assert_eq!(fails(1_999), 0);
    assert_eq!(fails(2_000), 29);
}

#[test]
fn fewer_successes_than_failures_of_fifty_are_a_majority() {
    let start = Instant::now();
    let majority_after = |pattern: &[bool]| {
        let mut tally = Tally::new(start);
        let outcomes = pattern.iter().cycle().take(200).enumerate();
        let mut verdicts = outcomes.map(|(n, is_success)| {
            let now = start + ms(n as u64);
            match is_success {
                true => {
                    tally.success(now);
                    false
                }
                false => tally.failure(Some(n as u64), now, now).is_majority,
            }
        });
        verdicts.position(|is_majority| is_majority).map(|before| before + 1)
    };
    assert_eq!(majority_after(&[true, false]), None, "one half is not less than half");
    assert_eq!(majority_after(&[true, false, false]), Some(50));
    assert_eq!(majority_after(&[false, true, true]), None);
}

#[test]
fn the_window_forgets_after_ten_seconds() {
    let start = Instant::now();
    let mut window = Window::new(start);
    (0..60).for_each(|_| window.count(false, start + ms(500)));
    assert!(window.is_bad());
    window.count(true, start + ms(9_999));
    assert!(window.is_bad());
    window.count(true, start + ms(10_000));
    assert!(!window.is_bad());
    window.count(false, start + Duration::from_secs(1 << 40));
    assert!(!window.is_bad());
}

proptest! {
    /// Against a list of all outcomes.
    #[test]
    fn the_window_is_the_sum_of_its_seconds(
        steps in prop::collection::vec((any::<bool>(), 0..900_u64, 1..40_u32), 1..200),
    ) {
        let start = Instant::now();
        let (mut window, mut all, mut at) = (Window::new(start), Vec::new(), 0);
        for (is_success, wait, count) in steps {
            at += wait;
            for _ in 0..count {
                window.count(is_success, start + ms(at));
                all.push((at / 1000, is_success));
            }
            let inside = |second: u64| second + 10 > at / 1000;
            let kept: Vec<_> = all.iter().filter(|(second, _)| inside(*second)).collect();
            let good = kept.iter().filter(|(_, is_success)| *is_success).count();
            prop_assert_eq!(window.is_bad(), kept.len() >= 50 && good * 2 < kept.len());
        }
    }
}

const AFTER: Duration = Duration::from_secs(10);

#[test]
fn a_key_counts_again_once_it_has_been_silent_for_ten_seconds() {
    let (start, mut voices) = (Instant::now(), Voices::default());
    let mut speaks = |key, at| voices.speak(key, start + ms(at));
    assert!(speaks(1, 0));
    assert!(!speaks(1, 1));
    assert!(speaks(2, 1));
    assert!(!speaks(1, 9_999));
    assert!(!speaks(1, 19_998), "it has not been silent");
    assert!(speaks(1, 29_998));
}

#[test]
fn a_full_table_counts() {
    let (start, mut voices) = (Instant::now(), Voices::default());
    for key in 0..64 {
        assert!(voices.speak(key, start));
    }
    assert!(!voices.speak(63, start));
    assert!(voices.speak(64, start));
    assert!(voices.speak(64, start), "there is no room for it");
    assert_eq!(voices.0.len(), 64);
    assert!(voices.speak(64, start + SILENCE));
    assert!(!voices.speak(64, start + SILENCE), "it has taken the place of a silent one");
    assert_eq!(voices.0.len(), 64);
}

proptest! {
    /// Against a table without bounds, as long as there is room.
    #[test]
    fn few_keys_speak_as_in_a_table_without_bounds(
        calls in prop::collection::vec((0..60_u64, 0..3_000_u64), 1..400),
    ) {
        let (mut now, mut voices) = (Instant::now(), Voices::default());
        let mut said: HashMap<u64, Instant> = HashMap::new();
        for (key, wait) in calls {
            now += ms(wait);
            let last = said.insert(key, now);
            prop_assert_eq!(voices.speak(key, now), last.is_none_or(|last| now - last >= SILENCE));
        }
    }
}

#[test]
fn five_keys_that_wait_for_ten_seconds_without_an_answer_are_a_stall() {
    let start = Instant::now();
    let mut watch = Watch::new(start);
    for key in 0..4 {
        watch.begin(key, start);
    }
    watch.begin(3, start);
    assert!(!watch.is_stalled(AFTER, start + AFTER), "four keys");
    let fifth = watch.begin(4, start + ms(1)).unwrap();
    assert!(!watch.is_stalled(AFTER, start + AFTER), "the fifth not for long enough");
    assert!(watch.is_stalled(AFTER, start + AFTER + ms(1)));
    let mut answered = watch.clone();
    answered.answered(start + ms(5_000));
    assert!(!answered.is_stalled(AFTER, start + ms(14_999)));
    assert!(answered.is_stalled(AFTER, start + ms(15_000)));
    watch.end(fifth, start + AFTER);
    assert!(!watch.is_stalled(AFTER, start + 2 * AFTER));
}

#[test]
fn keys_that_share_slots_are_told_apart() {
    let start = Instant::now();
    let mut watch = Watch::new(start);
    let same_slot = |n: u64| 60 + n * SLOTS as u64;
    let watched: Vec<_> = (0..9).map(|n| watch.begin(same_slot(n), start)).collect();
    assert_eq!(watched.iter().flatten().count(), 8, "the ninth is not watched");
    assert!(watch.is_stalled(AFTER, start + AFTER));
    // A slot in the middle is free, and the last key is still known.
    watch.end(watched[3].unwrap(), start);
    assert_eq!(watch.begin(same_slot(7), start), watched[7]);
    assert_eq!(watch.begin(same_slot(9), start), watched[3]);
}

#[test]
fn a_restart_forgets_what_is_under_way() {
    let start = Instant::now();
    let mut watch = Watch::new(start);
    (0..64).for_each(|key| _ = watch.begin(key, start));
    watch.restart(start + ms(1));
    assert!(!watch.is_stalled(AFTER, start + 3 * AFTER));
    (0..5).for_each(|key| _ = watch.begin(key, start + ms(1)));
    assert!(watch.is_stalled(AFTER, start + ms(10_001)));
}

proptest! {
    /// Against all attempts under way: never a stall that is none, and none missed while each key has one
    /// attempt and there is room.
    #[test]
    fn a_stall_is_seen_as_by_a_list_of_all_attempts(
        steps in prop::collection::vec((0..4_u8, 0..40_u64, 0..6_000_u64), 1..300), is_single in any::<bool>(),
    ) {
        let mut now = Instant::now();
        let (mut watch, mut answered) = (Watch::new(now), now);
        let mut out: Vec<(u64, Instant, Option<Watched>)> = Vec::new();
        for (step, key, wait) in steps {
            now += ms(wait);
            let is_out = out.iter().any(|(known, ..)| *known == key);
            match step {
                0 | 1 if !is_single || !is_out => out.push((key, now, watch.begin(key, now))),
                2 if !out.is_empty() => {
                    let (_, _, watched) = out.swap_remove(key as usize % out.len());
                    watched.into_iter().for_each(|watched| watch.end(watched, now));
                }
                3 if key < 4 => {
                    watch.answered(now);
                    answered = now;
                }
                _ => {}
            }
            let is_long = |(_, began, _): &&(u64, Instant, Option<Watched>)| now - *began >= AFTER;
            let long: HashSet<_> = out.iter().filter(is_long).map(|(key, ..)| key).collect();
            let is_stalled = long.len() >= STALLED_KEYS && now - answered >= AFTER;
            let seen = watch.is_stalled(AFTER, now);
            prop_assert!(is_stalled || !seen);
            let has_room = out.iter().all(|(_, _, watched)| watched.is_some());
            prop_assert!(seen == is_stalled || !is_single || !has_room);
        }
    }
}
