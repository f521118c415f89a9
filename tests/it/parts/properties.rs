//! Parts of random versions.

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Range(usize, usize),
    Whole,
    Change,
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..20_usize, 0..20_usize).prop_map(|(a, b)| Step::Range(a.min(b), a.max(b))),
        2 => Just(Step::Whole),
        1 => Just(Step::Change),
        1 => (1..8_u64).prop_map(Step::Wait),
    ]
}

fn content(version: usize) -> String {
    (0..20).map(|at| char::from(b'a' + ((at + 3 * version) % 26) as u8)).collect()
}

/// Every body has bytes of one version only, which was current less than a lifetime ago.
async fn every_answer_is_of_one_recent_version(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let version = Arc::new(AtomicUsize::new(0));
    let current = Arc::clone(&version);
    let origin = ScriptedOrigin::new(move |_, head| {
        let version = current.load(Ordering::SeqCst);
        serve(&content(version), head).header("etag", format!("\"{version}\""))
    });
    let service = cached(Rules::new(), &origin);
    let mut changed_at = vec![0];
    let mut now = 0;
    for step in steps {
        let (reply, extent) = match step {
            Step::Change => {
                version.fetch_add(1, Ordering::SeqCst);
                changed_at.push(now);
                continue;
            }
            Step::Wait(seconds) => {
                now += seconds;
                tokio::time::advance(secs(seconds)).await;
                continue;
            }
            Step::Whole => (get(&service, "/").await, 0..20),
            Step::Range(first, last) => {
                (range(&service, &format!("bytes={first}-{last}")).await, first..last + 1)
            }
        };
        // A complete response of unknown length is not cut.
        let extent = if reply.status == 200 { 0..20 } else { extent };
        let tag = reply.header("etag").unwrap().trim_matches('"').parse::<usize>().unwrap();
        prop_assert_eq!(&reply.body, &content(tag)[extent.clone()].to_owned());
        let replaced_at = changed_at.get(tag + 1);
        prop_assert!(replaced_at.is_none_or(|at| now < at + 10), "version {} at {}", tag, now);
    }
    Ok(())
}

proptest! {
    #[test]
    fn parts_never_mix_versions(steps in proptest::collection::vec(step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(every_answer_is_of_one_recent_version(steps))?;
    }
}
