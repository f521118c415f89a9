//! The dependencies build with the Rust version of the manifest.

use std::{
    collections::HashSet,
    env,
    error::Error,
    process::{Command, Stdio},
};

use serde_json::Value;

/// The metadata of this package and of its dependencies on every platform.
fn metadata() -> Result<Value, Box<dyn Error>> {
    let output = Command::new(env::var_os("CARGO").ok_or("no CARGO")?)
        .args(["metadata", "--format-version=1", "--all-features", "--locked"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stderr(Stdio::inherit())
        .output()?;
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn version(package: &Value) -> Option<[u32; 3]> {
    let mut parts = package["rust_version"].as_str()?.split('.').map_while(|part| part.parse().ok());
    Some([0; 3].map(|zero| parts.next().unwrap_or(zero)))
}

/// The ids of the packages that are compiled for a dependent of this one.
fn needed(metadata: &Value) -> HashSet<&str> {
    let nodes = || list(&metadata["resolve"]["nodes"]);
    let is_needed = |of: &&Value| list(&of["dep_kinds"]).any(|kind| kind["kind"] != "dev");
    let (mut needed, mut next) = (HashSet::new(), vec![metadata["resolve"]["root"].as_str().unwrap()]);
    while let Some(id) = next.pop() {
        if needed.insert(id) {
            let deps = nodes().filter(|node| node["id"] == id).flat_map(|node| list(&node["deps"]));
            next.extend(deps.filter(is_needed).filter_map(|of| of["pkg"].as_str()));
        }
    }
    needed
}

#[test]
fn no_dependency_needs_a_later_rust() {
    let metadata = metadata().unwrap();
    let needed = needed(&metadata);
    assert!(needed.len() > 20, "{needed:?}");
    let packages = || list(&metadata["packages"]);
    let own = packages().find(|package| package["id"] == metadata["resolve"]["root"]).and_then(version);
    assert!(own.is_some());
    let later = packages()
        .filter(|package| package["id"].as_str().is_some_and(|id| needed.contains(id)))
        .filter(|package| version(package) > own)
        .map(|package| format!("{} {}", package["name"], package["rust_version"]));
    assert_eq!(later.collect::<Vec<_>>(), Vec::<String>::new());
}
