//! Figures against sizes. Each point is one command of this program, which the file of the points
//! names, so that any of them can be had alone.

mod all;
mod plot;

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    args::Args,
    itself::{figures, words},
};

const DIRECTORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../curves");

/// What is drawn in one picture.
struct Curve {
    name: &'static str,
    title: &'static str,
    x: &'static str,
    y: &'static str,
    /// The measurement, without what changes from point to point and without `--only`.
    command: &'static str,
    /// What changes, and its values.
    option: &'static str,
    values: &'static [u64],
    /// The figure that is drawn.
    key: &'static str,
    candidates: &'static [&'static str],
    /// Each candidate in a process of its own, because all of them together take too much memory.
    apart: bool,
    log_y: bool,
}

struct Point {
    candidate: String,
    x: f64,
    y: f64,
}

impl Curve {
    /// Up to this value.
    fn measure(&self, most: u64) -> Result<Vec<Point>, String> {
        let mut points = Vec::new();
        let all = self.candidates.join(",");
        let groups = if self.apart { self.candidates.to_vec() } else { vec![&*all] };
        for value in self.values.iter().filter(|value| **value <= most) {
            for only in &groups {
                self.point(*value, only, &mut points)?;
            }
        }
        Ok(points)
    }

    fn point(&self, value: u64, only: &str, points: &mut Vec<Point>) -> Result<(), String> {
        let command = format!("{} --{} {value} --only {only}", self.command, self.option);
        let figures = figures(&words(&command))?;
        for candidate in only.split(',') {
            if let Some(y) = figures[candidate][self.key].as_f64() {
                points.push(Point { candidate: candidate.into(), x: value as f64, y });
            }
        }
        Ok(())
    }

    fn csv(&self, points: &[Point]) -> String {
        let mut lines = vec![
            format!("# {} --{} N --only CANDIDATE", self.command, self.option),
            format!("candidate,{},{}", self.option, self.key),
        ];
        lines.extend(points.iter().map(|Point { candidate, x, y }| format!("{candidate},{x},{y:.4}")));
        lines.join("\n") + "\n"
    }
}

fn read_csv(text: &str) -> Vec<Point> {
    let point = |line: &str| {
        let mut cells = line.split(',');
        let candidate = cells.next()?.to_owned();
        Some(Point { candidate, x: cells.next()?.parse().ok()?, y: cells.next()?.parse().ok()? })
    };
    text.lines().filter_map(point).collect()
}

fn chosen(args: &Args) -> impl Iterator<Item = &'static Curve> {
    let only: Option<Vec<String>> =
        args.text("curve").map(|only| only.split(',').map(str::to_owned).collect());
    all::CURVES
        .iter()
        .filter(move |curve| only.as_ref().is_none_or(|only| only.iter().any(|name| name == curve.name)))
}

fn directory(args: &Args) -> PathBuf {
    args.text("out").map_or_else(|| DIRECTORY.into(), PathBuf::from)
}

/// Measures the points, writes them to `NAME.csv` and draws `NAME.svg`.
pub(crate) fn curves(args: &Args) -> Result<(), String> {
    let directory = directory(args);
    fs::create_dir_all(&directory).map_err(|error| error.to_string())?;
    let most = args.number("most", usize::MAX) as u64;
    for curve in chosen(args) {
        let csv = curve.csv(&curve.measure(most)?);
        if args.json() {
            println!("{}", json(curve, &csv));
        }
        fs::write(path(&directory, curve, "csv"), csv).map_err(|error| error.to_string())?;
        draw(&directory, curve)?;
    }
    Ok(())
}

fn json(curve: &Curve, csv: &str) -> serde_json::Value {
    let points = read_csv(csv).into_iter();
    let points: Vec<_> = points.map(|point| serde_json::json!([point.candidate, point.x, point.y])).collect();
    serde_json::json!({ curve.name: points })
}

/// Draws what was measured before.
pub(crate) fn plot(args: &Args) -> Result<(), String> {
    chosen(args).try_for_each(|curve| draw(&directory(args), curve))
}

fn path(directory: &Path, curve: &Curve, extension: &str) -> PathBuf {
    directory.join(curve.name).with_extension(extension)
}

fn draw(directory: &Path, curve: &Curve) -> Result<(), String> {
    let csv = path(directory, curve, "csv");
    let text = fs::read_to_string(&csv).map_err(|error| format!("{}: {error}", csv.display()))?;
    plot::draw(curve, &read_csv(&text), &path(directory, curve, "svg")).map_err(|error| error.to_string())
}
