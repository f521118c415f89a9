//! A node that starts with an empty store, where the second tier has all that it is asked for.

use tokio::time::Instant;

use futures_util::future::join_all;

use super::{
    node::{Node, Origin, Stack},
    server::Server,
};

const PATHS: usize = 10_000;
const CALLERS: usize = 64;
const NAMESPACE: &str = "restart";

pub(crate) async fn measure(server: &Server) {
    let origin = Origin::new(1 << 10);
    let before = Node::start(&server.url(), NAMESPACE, &origin).await;
    for paths in paths().chunks(500) {
        ask(&before.stack, paths).await;
        before.written().await;
    }
    let calls = origin.calls();
    drop(before);
    for (callers, paths) in [(1, paths()), (CALLERS, paths())] {
        let after = Node::start(&server.url(), NAMESPACE, &origin).await;
        let began = Instant::now();
        join_all(paths.chunks(PATHS.div_ceil(callers)).map(|paths| {
            let (stack, paths) = (after.stack.clone(), paths.to_vec());
            tokio::spawn(async move { ask(&stack, &paths).await })
        }))
        .await
        .into_iter()
        .for_each(Result::unwrap);
        println!(
            "{PATHS} paths by {callers:>2} callers: {} calls of the origin, {:.2} s, {:.0} µs each",
            origin.calls() - calls,
            began.elapsed().as_secs_f64(),
            began.elapsed().as_secs_f64() * 1e6 / PATHS as f64,
        );
    }
}

fn paths() -> Vec<String> {
    (0..PATHS).map(|n| format!("/pages/{n}")).collect()
}

async fn ask(stack: &Stack, paths: &[String]) {
    let mut stack = stack.clone();
    for path in paths {
        stack.get(path, "").await;
    }
}
