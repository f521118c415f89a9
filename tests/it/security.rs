//! Published attacks on caches, each by its name, with the variations that the same weakness allows.

mod desync;
mod keys;
#[cfg(feature = "purge-service")]
mod purging;
mod stored;
mod work;

/// Every test that the threat model names exists.
#[test]
fn every_test_that_the_threat_model_names_is_there() {
    let model = include_str!("../../SECURITY.md");
    let rows = model
        .lines()
        .filter_map(|line| line.strip_prefix("| **")?.trim_end_matches(" |").rsplit(" | ").next());
    let tests: Vec<&str> = rows.flat_map(|tests| tests.split('`').skip(1).step_by(2)).collect();
    assert!(tests.len() > 20, "{tests:?}");
    let tests_of_the_crate = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let roots = [tests_of_the_crate.join("it"), tests_of_the_crate];
    for test in tests {
        let mut names = test.split("::");
        let file = names.next().unwrap_or_default();
        let text: String = (roots.iter())
            .map(|root| text_below(&root.join(file)) + &text_below(&root.join(format!("{file}.rs"))))
            .collect();
        assert!(!text.is_empty(), "{test}");
        for name in names {
            let is_there = [format!("mod {name};"), format!("mod {name} {{"), format!("fn {name}(")];
            assert!(is_there.iter().any(|item| text.contains(item)), "{test}");
        }
    }
}

/// The text of a file, or of all files of a directory.
fn text_below(path: &std::path::Path) -> String {
    match std::fs::read_dir(path) {
        Ok(files) => files.flatten().map(|file| text_below(&file.path())).collect(),
        Err(_) => std::fs::read_to_string(path).unwrap_or_default(),
    }
}
