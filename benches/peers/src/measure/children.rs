//! Measurements for which each candidate gets a process of its own.

use std::{
    env,
    process::{Command, Output},
};

use crate::{
    args::Args,
    candidates::{Kind, Meta},
    runner::chosen,
    table::{Cell, Column, Table},
};

/// Runs `sub --cand NAME ...` for each candidate, rounds interleaved. A child prints its figures
/// separated by tabs, in the order of the columns.
pub(super) struct Children<'a> {
    pub(super) sub: &'a str,
    pub(super) options: Vec<(&'a str, usize)>,
    pub(super) rounds: usize,
    pub(super) columns: &'a [Column],
}

impl Children<'_> {
    pub(super) fn table(&self, title: String, args: &Args, keep: impl Fn(&Meta) -> bool) -> Table {
        let keep = |meta: &Meta| meta.kind != Kind::Limit && keep(meta);
        let names: Vec<_> = chosen(args.only(), keep).iter().map(|candidate| candidate.meta().name).collect();
        let mut runs: Vec<Vec<Vec<f64>>> = vec![Vec::new(); names.len()];
        for _ in 0..self.rounds {
            for (name, runs) in names.iter().zip(&mut runs) {
                runs.extend(self.run(name));
            }
        }
        let mut table = Table::new(title, self.columns);
        for (name, runs) in names.iter().zip(&runs) {
            let column = |at: usize| runs.iter().map(|run| run[at]).collect::<Vec<_>>();
            table.row(*name, (0..self.columns.len()).map(|at| Cell::spread(&column(at))).collect());
        }
        table
    }

    fn run(&self, name: &str) -> Option<Vec<f64>> {
        let mut command = Command::new(env::current_exe().expect("this program"));
        command.args([self.sub, "--cand", name]);
        for (option, value) in &self.options {
            command.args([format!("--{option}"), value.to_string()]);
        }
        let Output { stdout, stderr, .. } = command.output().expect("it starts");
        let figures = String::from_utf8_lossy(&stdout);
        let figures: Vec<f64> = figures.trim().split('\t').filter_map(|figure| figure.parse().ok()).collect();
        if figures.len() == self.columns.len() {
            return Some(figures);
        }
        let stderr = String::from_utf8_lossy(&stderr);
        eprintln!("{name} failed: {}", stderr.lines().take(3).collect::<Vec<_>>().join(" / "));
        None
    }
}

pub(super) fn print_figures(figures: &[f64]) {
    let figures: Vec<_> = figures.iter().map(|figure| format!("{figure:.4}")).collect();
    println!("{}", figures.join("\t"));
}
