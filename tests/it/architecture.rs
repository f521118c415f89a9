//! What may import what, as ARCHITECTURE.md draws it.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

const HIT_FILES: usize = 15;
const HIT_FILES_IN_PASSING: usize = 3;
const MISS_FILES: usize = 35;
const MISS_FILES_IN_PASSING: usize = 29;

const DOCUMENT: &str = include_str!("../../ARCHITECTURE.md");

/// The rooms from the ground up, as the first block of the document draws them. A room imports from its own
/// line and from the lines before it.
fn floors() -> Vec<Vec<&'static str>> {
    let block = DOCUMENT.split("```").nth(1).expect("a block of rooms");
    let lines = block.lines().skip(1).filter(|line| !line.trim().is_empty());
    let names = |line: &'static str| line.split("  ").next().unwrap_or(line).split(" · ").map(str::trim);
    let mut floors: Vec<_> = lines.map(|line| names(line).collect()).collect();
    floors.reverse();
    floors
}

/// Imports from a higher floor: the rows of the first table.
fn exceptions() -> Vec<(&'static str, &'static str)> {
    let rows = DOCUMENT.lines().skip_while(|line| !line.starts_with("| room |")).skip(2);
    let rows = rows.take_while(|line| line.starts_with('|'));
    let cell = |row: &'static str, n| row.split('|').nth(n).unwrap_or_default().trim().trim_matches('`');
    rows.map(|row| (cell(row, 1), cell(row, 2))).collect()
}

/// The files that a section lists, without those under headings within it.
fn listed(section: &str) -> Vec<&'static str> {
    let start = DOCUMENT.find(&format!("# {section}\n")).expect("the section");
    let text = &DOCUMENT[start..];
    let text = text.split("\n#").next().unwrap_or_default();
    text.split('`').filter(|word| word.starts_with("src/")).collect()
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
    let (floors, exceptions) = (floors(), exceptions());
    let floor = |room: &str| floors.iter().position(|floor| floor.contains(&room));
    let (mut upward, mut used) = (Vec::new(), BTreeSet::new());
    let is_test = |file: &Path| file.to_str().unwrap().ends_with("_tests.rs");
    for file in files.iter().filter(|file| !file.ends_with("lib.rs") && !is_test(file)) {
        let inside = file.strip_prefix(&source).unwrap();
        let first = inside.components().next().unwrap().as_os_str().to_str().unwrap();
        let room = first.trim_end_matches(".rs");
        let here = floor(room).unwrap_or_else(|| panic!("`{room}` has no floor"));
        for other in imported(&code(file)) {
            let is_below = floor(&other).is_some_and(|there| there <= here);
            let exception = exceptions.iter().find(|(from, to)| *from == room && *to == other);
            match exception {
                _ if is_below => {}
                Some(exception) => drop(used.insert(exception)),
                None => upward.push(format!("{} imports {other}", inside.display())),
            }
        }
    }
    assert_eq!(upward, Vec::<String>::new());
    assert_eq!(used.len(), exceptions.len(), "an exception that nothing needs: {exceptions:?}");
}

/// A layer talks to another one through the contract alone; `service`, `derived_key`, `invalidation`, `key`
/// and `repeat` are what several of them share.
#[test]
fn no_layer_imports_another_one() {
    let layers = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/layers");
    let names = ["coalesce", "fill", "lookup", "origin_limit", "retry", "stale_if_error", "tier"];
    let mut files = Vec::new();
    rust_files(&layers, &mut files);
    let mut found = Vec::new();
    for file in &files {
        let inside = file.strip_prefix(&layers).unwrap().to_str().unwrap().to_owned();
        let (code, own) = (code(file), names.iter().find(|name| inside.starts_with(**name)));
        for other in names.iter().filter(|name| Some(*name) != own) {
            let is_imported = code.contains(&format!("layers::{other}"))
                || code.lines().any(|line| line.trim().starts_with(&format!("{other}::{{")));
            if is_imported && !inside.starts_with("mod") {
                found.push(format!("{inside} imports {other}"));
            }
        }
    }
    assert_eq!(found, Vec::<String>::new());
}

/// A new major version of it is a change to one file.
#[test]
fn one_file_names_the_client_library_of_the_server() {
    let mut files = Vec::new();
    rust_files(Path::new("src"), &mut files);
    // A list behind it is one of names of the module that is called so, unless an import begins there.
    let is_named = |code: &str| {
        code.match_indices("redis::").any(|(at, name)| {
            let (before, behind) = (&code[..at], &code[at + name.len()..]);
            before.ends_with("use ") || before.ends_with([' ', '(', '&', '<']) && !behind.starts_with('{')
        })
    };
    let naming: Vec<_> = files.iter().filter(|path| is_named(&code(path))).collect();
    assert_eq!(naming, [Path::new("src/remote/connection.rs")]);
}

#[test]
fn the_document_names_files_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let is_path =
        |word: &&str| ["src/", "tests/", "examples/", "benches/"].iter().any(|start| word.starts_with(start));
    let missing: Vec<_> =
        DOCUMENT.split('`').filter(is_path).filter(|path| !root.join(path).exists()).collect();
    assert_eq!(missing, Vec::<&str>::new());
}

/// What a reader has to open to follow a request: all of it for a hit, and what a miss spends its time in.
#[test]
fn a_hit_and_a_miss_cross_few_files() {
    let (hit, miss, in_passing) = (listed("A hit"), listed("A miss"), listed("In passing"));
    let hit_in_passing = listed("Of a hit, in passing");
    assert!((1..=HIT_FILES).contains(&hit.len()), "{}", hit.len());
    assert!((1..=HIT_FILES_IN_PASSING).contains(&hit_in_passing.len()), "{}", hit_in_passing.len());
    assert!((1..=MISS_FILES).contains(&miss.len()), "{}", miss.len());
    assert!((1..=MISS_FILES_IN_PASSING).contains(&in_passing.len()), "{}", in_passing.len());
    for path in [[hit, hit_in_passing].concat(), [miss, in_passing].concat()] {
        let files: BTreeSet<_> = path.iter().collect();
        assert_eq!(files.len(), path.len(), "a file is listed twice: {path:?}");
    }
}
