//! Which keys are asked for, how often, and what the origin says.

use std::sync::Arc;

use super::rounds::Contender;
use crate::{
    args::Args,
    candidates::Config,
    origin::{Answer, Mode},
    runner::{Candidate, Source, each, kept, ordered},
    zipf::{Rng, Zipf},
};

const PICKS: usize = 1 << 20;

pub(super) struct Workload {
    pub(super) name: String,
    keys: usize,
    /// Of each key.
    variants: usize,
    answer: Answer,
    key_rules: usize,
    order: Arc<[u32]>,
    /// The client keeps its URIs, and does not make a new one for each request.
    keeps_uris: bool,
}

impl Workload {
    /// One of the three that have a name, or one made of `--keys`, `--body`, `--fields` and
    /// `--variants`, all asked for equally often.
    pub(super) fn new(args: &Args) -> Self {
        let own = ["keys", "body", "fields", "variants"].iter().any(|option| args.text(option).is_some());
        let name = args.text("workload").unwrap_or(if own { "uniform" } else { "hot1k" });
        Self { key_rules: args.number("key-rules", 1), ..Self::named(name, args) }
    }

    fn named(name: &str, args: &Args) -> Self {
        match name {
            "hot1k" => Self::hot(name, 1024),
            "hot600k" => Self::hot(name, 600 * 1024),
            "zipf" => Self {
                name: name.into(),
                keys: 100_000,
                variants: 1,
                answer: Answer::new(1024, Mode::Fresh),
                key_rules: 1,
                order: Zipf::new(100_000, 0.99, 42).take(PICKS).into(),
                keeps_uris: true,
            },
            "uniform" => Self::uniform(args),
            _ => panic!("--workload hot1k | zipf | hot600k | uniform"),
        }
    }

    fn hot(name: &str, body: usize) -> Self {
        let answer = Answer::new(body, Mode::Shared);
        Self {
            name: name.into(),
            keys: 1,
            variants: 1,
            answer,
            key_rules: 1,
            order: [0].into(),
            keeps_uris: true,
        }
    }

    fn uniform(args: &Args) -> Self {
        let [keys, variants] = ["keys", "variants"].map(|option| args.number(option, 1));
        let (body, fields) = (args.number("body", 1024), args.number("fields", 8));
        let mode = if keys > 1 { Mode::Fresh } else { Mode::Shared };
        let (entries, mut rng) = ((keys * variants) as u64, Rng::new(5));
        let order = (0..PICKS).map(|_| rng.below(entries) as u32).collect();
        let name = format!("{keys} keys, {variants} variants, {body} bytes, {fields} fields");
        let answer = Answer::new(body, mode).fields(fields);
        Self { name, keys, variants, answer, key_rules: 1, order, keeps_uris: false }
    }

    /// All that there is, once.
    fn each(&self, absolute: bool) -> Source {
        if self.keeps_uris { kept(self.keys, absolute) } else { each(self.variants as u64, absolute) }
    }

    /// For so many threads, each with URIs of its own, as on a connection of its own.
    pub(super) fn sources(&self, threads: usize, absolute: bool) -> Vec<Source> {
        (0..threads).map(|_| ordered(self.each(absolute), &self.order)).collect()
    }

    /// A candidate that holds all of it.
    pub(super) fn contender(
        &self,
        candidate: &dyn Candidate,
        runtime: &tokio::runtime::Runtime,
    ) -> Contender {
        let entries = self.keys * self.variants;
        let config = Config { key_rules: self.key_rules, ..Config::new((entries * 2).max(1000)) };
        let mut contender = Contender::new(candidate, &config, self.answer);
        contender.live.ask(runtime, &self.each(contender.meta.absolute_uri), 0, entries);
        contender
    }
}
