//! The documents to be copied, each with its table.

#[path = "../../../examples/rules/check.rs"]
pub(crate) mod check;

macro_rules! documents {
    ($($name:literal),* $(,)?) => {
        [$((
            $name,
            include_str!(concat!("../../../examples/rules/", $name, ".json")),
            include_str!(concat!("../../../examples/rules/", $name, ".table.json")),
        )),*]
    };
}

/// Names, documents and tables.
pub(crate) const ALL: [(&str, &str, &str); 10] = documents![
    "wordpress",
    "drupal",
    "magento",
    "headless-cms",
    "graphql",
    "search",
    "images",
    "gateway",
    "flash-sale",
    "saas",
];

#[test]
fn each_document_gives_what_its_table_says_without_a_warning() {
    let faults =
        ALL.into_iter().filter_map(|(name, document, table)| match check::check(document, Some(table)) {
            Ok(report) if report.warnings == 0 => None,
            Ok(report) => Some(format!("{name}: {}", report.text)),
            Err(error) => Some(format!("{name}: {error}")),
        });
    let faults: Vec<_> = faults.collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// A table that no change of its document breaks would be useless.
#[test]
fn removing_any_rule_breaks_its_table() {
    for (name, document, table) in ALL {
        let document: serde_json::Value = serde_json::from_str(document).unwrap();
        for index in 0..document["rules"].as_array().unwrap().len() {
            let mut without = document.clone();
            without["rules"].as_array_mut().unwrap().remove(index);
            let is_met = check::check(&without.to_string(), Some(table)).is_ok();
            assert!(!is_met, "{name}: the table is met without rule {index}");
        }
    }
}
