//! What is measured, as a table in Markdown or one JSON object.

use serde_json::{Map, Value, json};

use crate::args::Args;

/// A column: what it is called in Markdown and in JSON, and how many digits follow the point.
#[derive(Clone, Copy)]
pub(crate) struct Column {
    pub(crate) title: &'static str,
    pub(crate) key: &'static str,
    pub(crate) digits: usize,
}

pub(crate) const fn column(title: &'static str, key: &'static str, digits: usize) -> Column {
    Column { title, key, digits }
}

pub(crate) enum Cell {
    Number(f64),
    /// The median of several runs, the least and the most.
    Spread(f64, f64, f64),
    Text(String),
}

impl Cell {
    /// Of several runs.
    pub(crate) fn spread(values: &[f64]) -> Self {
        let values = sorted(values);
        match (values.first(), values.last()) {
            (Some(least), Some(most)) => Self::Spread(median(&values), *least, *most),
            _ => Self::Number(f64::NAN),
        }
    }

    fn markdown(&self, digits: usize) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Number(number) if number.is_nan() => "–".into(),
            Self::Number(number) => format!("{number:.digits$}"),
            Self::Spread(middle, least, most) => {
                let [middle, least, most] = [middle, least, most].map(|number| format!("{number:.digits$}"));
                if least == most { middle } else { format!("{middle} ({least}..{most})") }
            }
        }
    }

    fn put(&self, key: &str, into: &mut Map<String, Value>) {
        match self {
            Self::Text(text) => _ = into.insert(key.into(), json!(text)),
            Self::Number(number) => _ = into.insert(key.into(), json!(number)),
            Self::Spread(middle, least, most) => {
                into.insert(key.into(), json!(middle));
                into.insert(format!("{key}_min"), json!(least));
                into.insert(format!("{key}_max"), json!(most));
            }
        }
    }
}

pub(crate) struct Table {
    title: String,
    first: &'static str,
    columns: Vec<Column>,
    rows: Vec<(String, Vec<Cell>)>,
}

impl Table {
    pub(crate) fn new(title: impl Into<String>, columns: &[Column]) -> Self {
        Self { title: title.into(), first: "candidate", columns: columns.to_vec(), rows: Vec::new() }
    }

    pub(crate) const fn first(mut self, title: &'static str) -> Self {
        self.first = title;
        self
    }

    pub(crate) fn row(&mut self, name: impl Into<String>, cells: Vec<Cell>) {
        self.rows.push((name.into(), cells));
    }

    /// As a JSON object, or in Markdown with all columns or those that are asked for by key.
    pub(crate) fn print(&self, args: &Args) {
        if args.json() {
            println!("{}", self.json());
        } else {
            println!("{}", self.markdown(args.text("columns")));
        }
    }

    fn json(&self) -> Value {
        let rows = self.rows.iter().map(|(name, cells)| {
            let mut row = Map::new();
            self.columns.iter().zip(cells).for_each(|(column, cell)| cell.put(column.key, &mut row));
            (name.clone(), Value::Object(row))
        });
        Value::Object(rows.collect())
    }

    fn markdown(&self, only: Option<&str>) -> String {
        let keep = |column: &Column| only.is_none_or(|only| only.split(',').any(|key| key == column.key));
        let titles: Vec<&str> =
            self.columns.iter().filter(|each| keep(each)).map(|each| each.title).collect();
        let mut lines = vec![format!("{}\n", self.title)];
        lines.push(format!("| {} | {} |", self.first, titles.join(" | ")));
        lines.push(format!("|---|{}", "--:|".repeat(titles.len())));
        for (name, cells) in &self.rows {
            let cells = self.columns.iter().zip(cells).filter(|(column, _)| keep(column));
            let cells: Vec<_> = cells.map(|(column, cell)| cell.markdown(column.digits)).collect();
            lines.push(format!("| {name} | {} |", cells.join(" | ")));
        }
        lines.join("\n")
    }
}

pub(crate) fn sorted(values: &[f64]) -> Vec<f64> {
    let mut values: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
    values.sort_by(f64::total_cmp);
    values
}

/// Of those that are numbers.
pub(crate) fn median(values: &[f64]) -> f64 {
    let values = sorted(values);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}
