//! The schema of documents has exactly the fields that the code reads.

use std::collections::BTreeSet;

use boon::{Compiler, SchemaIndex, Schemas};
use serde_json::{Value, json};
use tower_readthrough::KeyRulesBuilder;

const SCHEMA: &str = include_str!("../../../examples/rules/schema.json");

fn schema() -> Value {
    serde_json::from_str(SCHEMA).unwrap()
}

struct Validator {
    schemas: Schemas,
    index: SchemaIndex,
}

impl Validator {
    fn new() -> Self {
        let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
        compiler.add_resource("schema.json", schema()).unwrap();
        let index = compiler.compile("schema.json", &mut schemas).unwrap();
        Self { schemas, index }
    }

    fn check(&self, document: &Value) -> Result<(), String> {
        self.schemas.validate(document, self.index).map_err(|error| error.to_string())
    }
}

/// The fields that the code knows at this place, for it names them where one is unknown.
fn fields_at(place: &Place<'_>) -> BTreeSet<String> {
    let document = place(json!({ "no such field": 1 }));
    let error = serde_json::from_value::<KeyRulesBuilder>(document).unwrap_err().to_string();
    let (_, fields) = error.split_once("unknown field `no such field`, expected ").unwrap();
    fields.split('`').skip(1).step_by(2).map(Into::into).collect()
}

fn resolved<'s>(schema: &'s Value, part: &'s Value) -> &'s Value {
    match part["$ref"].as_str() {
        Some(reference) => schema.pointer(reference.strip_prefix('#').unwrap()).unwrap(),
        None => part,
    }
}

/// An object with this field, and what it must have beside it.
fn with_required(object: &Value, name: &str, value: Value) -> Value {
    let mut fields = json!({});
    for required in object["required"].as_array().into_iter().flatten() {
        let required = required.as_str().unwrap();
        fields[required] = object["properties"][required]["examples"][0].clone();
    }
    fields[name] = value;
    fields
}

/// A document with this value in some place.
type Place<'p> = dyn Fn(Value) -> Value + 'p;

/// Calls `f` for each object of the schema, with how a document has one there.
fn for_each_object<'s>(
    schema: &'s Value,
    part: &'s Value,
    place: &Place<'_>,
    f: &mut dyn FnMut(&'s Value, &Place<'_>),
) {
    let part = resolved(schema, part);
    for alternative in part["anyOf"].as_array().into_iter().flatten() {
        for_each_object(schema, alternative, place, f);
    }
    if part["items"].is_object() {
        for_each_object(schema, &part["items"], &|value| place(json!([value])), f);
    }
    if let Some(properties) = part["properties"].as_object() {
        f(part, place);
        for (name, property) in properties {
            for_each_object(schema, property, &|value| place(with_required(part, name, value)), f);
        }
    }
}

#[test]
fn every_field_of_a_document_is_in_the_schema_and_no_other() {
    let (schema, mut objects) = (schema(), 0);
    for_each_object(&schema, &schema, &|value| value, &mut |object, place| {
        let properties: BTreeSet<String> =
            object["properties"].as_object().unwrap().keys().cloned().collect();
        let known = fields_at(place);
        // Other names of the same.
        let aliases = ["hosts", "methods", "paths"].map(String::from);
        let missing: Vec<_> = known.difference(&properties).filter(|name| !aliases.contains(name)).collect();
        assert_eq!(missing, [""; 0], "{}", place(json!({})));
        assert_eq!(properties.difference(&known).collect::<Vec<_>>(), [""; 0], "{}", place(json!({})));
        assert_eq!(object["additionalProperties"], json!(false), "{}", place(json!({})));
        objects += 1;
    });
    assert!(objects >= 4, "there are rules, guards and more");
}

#[test]
fn the_schema_takes_what_the_code_reads() {
    let (schema, validator) = (schema(), Validator::new());
    let values = [
        json!(true),
        json!(7),
        json!(-1),
        json!(0.5),
        json!("https"),
        json!("10s"),
        json!("1h 30m"),
        json!("1.5 hours"),
        json!("5M"),
        json!("if-error"),
        json!([]),
        json!(["a"]),
        json!(["if-error"]),
        json!([1]),
        json!({}),
        json!({ "share": 0.1, "at_most": "1d" }),
        json!({ "share": 0.1 }),
        json!([{}]),
    ];
    for_each_object(&schema, &schema, &|value| value, &mut |object, place| {
        for (name, property) in object["properties"].as_object().unwrap() {
            let of_field = |value: &Value| place(with_required(object, name, value.clone()));
            let examples = property["examples"].as_array().unwrap_or_else(|| panic!("{name} has no example"));
            for value in values.iter().chain(examples) {
                let document = of_field(value);
                let read = serde_json::from_value::<KeyRulesBuilder>(document.clone());
                let valid = validator.check(&document);
                assert_eq!(valid.is_ok(), read.is_ok(), "{document}: {valid:?} {:?}", read.err());
            }
            for example in examples {
                assert_eq!(validator.check(&of_field(example)), Ok(()), "{name}");
            }
        }
    });
}

/// The settings that another setting needs to have an effect.
fn companions(setting: &str) -> Value {
    match setting {
        "forward_unkeyed" => json!({ "keep_query": ["q"] }),
        "body" => json!({ "method": "POST" }),
        "graphql" | "json_body" => json!({ "method": "POST", "body": 64 }),
        "persisted_queries" => json!({ "method": "POST", "body": 64, "graphql": true }),
        "stale_despite_revalidate" => json!({ "stale_if_error_for": "1h" }),
        _ => json!({}),
    }
}

#[test]
fn each_setting_of_a_rule_is_in_its_explanation() {
    let explained = |rule: &Value| {
        let document = json!({ "rules": [rule] });
        let rules = super::documents::check::rules(&document.to_string());
        rules.map(|rules| rules.explain()[0].to_string())
    };
    let schema = schema();
    for (name, property) in schema["$defs"]["rule"]["properties"].as_object().unwrap() {
        let mut rule = companions(name);
        let capture = json!("/user/{id}");
        if name != "path" {
            rule["path"] = capture;
        }
        let without = explained(&rule).unwrap_or_default();
        rule[name] = property["examples"][0].clone();
        assert_ne!(explained(&rule).unwrap(), without, "{name}");
    }
}

#[test]
fn each_setting_of_a_document_is_in_its_explanation() {
    let explained = |document: &Value| {
        let summaries = super::documents::check::rules(&document.to_string()).unwrap().explain();
        summaries.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    for (name, property) in schema()["properties"].as_object().unwrap() {
        if name == "rules" {
            continue;
        }
        let mut document = json!({ "rules": [{ "headers": ["x-device"] }] });
        let without = explained(&document);
        document[name] = property["examples"][0].clone();
        let is_said = explained(&document) != without;
        assert_eq!(is_said, name != "$schema", "{name}");
    }
}

#[test]
fn the_documents_are_valid() {
    let validator = Validator::new();
    for (name, document, _) in super::documents::ALL {
        assert_eq!(validator.check(&serde_json::from_str(document).unwrap()), Ok(()), "{name}");
    }
    for wrong in [json!([]), json!({ "rule": [] }), json!({ "rules": [{ "path": [] }] })] {
        assert!(validator.check(&wrong).is_err(), "{wrong}");
    }
}

/// The documentation has a table of all settings.
#[test]
fn the_table_of_the_documentation_has_every_name() {
    let text = include_str!("../../../src/key/rules/mod.rs");
    let rows: String = text.lines().filter(|line| line.starts_with("//! | ")).collect();
    for_each_object(&schema(), &schema(), &|value| value, &mut |object, _| {
        for name in object["properties"].as_object().unwrap().keys().filter(|name| *name != "$schema") {
            assert!(rows.contains(&format!("`{name}`")), "{name}");
        }
    });
}
