//! What may import what, as ARCHITECTURE.md draws it.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// The rooms from the ground up. A room imports from its own line and from the lines before it.
const FLOORS: &[&[&str]] = &[
    &["work", "reasons", "executor", "shared_error", "body", "request_body"],
    &["http", "tags", "build_error"],
    &["key"],
    &["sequence"],
    &["store"],
    &["exchange", "purge"],
    &["layers"],
    &["stack"],
    &["rule_table", "defaults"],
];

/// Imports from a higher floor, and why they stand.
const EXCEPTIONS: &[(&str, &str, &str)] =
    &[("build_error", "key", "an error of the builder has the error of the rules as its source")];

fn floor(room: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&room))
}

fn rust_files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
}

/// The code of a file without comments and without its unit tests.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let code = text.split("\n#[cfg(test)]\n").next().unwrap_or_default();
    let is_code = |line: &&str| !line.trim_start().starts_with("//");
    code.lines().filter(is_code).flat_map(|line| [line, "\n"]).collect()
}

/// The names that follow `crate::`, alone or in braces.
fn imported(code: &str) -> BTreeSet<String> {
    let name = |text: &str| -> String {
        text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
    };
    let mut rooms = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        let Some(group) = rest.strip_prefix('{') else {
            rooms.insert(name(rest));
            continue;
        };
        let mut depth = 0;
        let mut member = 0;
        for (at, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => {
                    rooms.insert(name(&group[member..at]));
                    break;
                }
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    rooms.insert(name(&group[member..at]));
                    member = at + 1;
                }
                _ => {}
            }
        }
    }
    rooms.remove("");
    rooms
}

#[test]
fn imports_point_downwards() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&source, &mut files);
    let (mut upward, mut used) = (Vec::new(), BTreeSet::new());
    let is_test = |file: &Path| file.to_str().unwrap().ends_with("_tests.rs");
    for file in files.iter().filter(|file| !file.ends_with("lib.rs") && !is_test(file)) {
        let inside = file.strip_prefix(&source).unwrap();
        let first = inside.components().next().unwrap().as_os_str().to_str().unwrap();
        let room = first.trim_end_matches(".rs");
        let here = floor(room).unwrap_or_else(|| panic!("`{room}` has no floor"));
        for other in imported(&code(file)) {
            let is_below = floor(&other).is_some_and(|there| there <= here);
            let exception = EXCEPTIONS.iter().find(|(from, to, _)| *from == room && *to == other);
            match exception {
                _ if is_below => {}
                Some(exception) => drop(used.insert(exception)),
                None => upward.push(format!("{} imports {other}", inside.display())),
            }
        }
    }
    assert_eq!(upward, Vec::<String>::new());
    assert_eq!(used.len(), EXCEPTIONS.len(), "an exception that nothing needs: {EXCEPTIONS:?}");
}
