//! What was measured: figures with their units, on which machine, as a table and as JSON.
//!
//! It must not know how a figure came about.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// One line of the report: a case, and its figures by name. The name ends in the unit.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    pub scenario: String,
    /// The server: `magpie`, `plain-warp`, `floor`.
    pub server: String,
    /// What tells this row from others of the scenario, such as `1000 members, one at a time`.
    pub case: String,
    pub figures: BTreeMap<String, f64>,
}

impl Row {
    pub fn new(scenario: &str, server: &str, case: impl Into<String>) -> Row {
        Row {
            scenario: scenario.to_owned(),
            server: server.to_owned(),
            case: case.into(),
            figures: BTreeMap::new(),
        }
    }

    /// Adds a figure.
    pub fn with(mut self, name: &str, value: f64) -> Row {
        self.figures.insert(name.to_owned(), value);
        self
    }

    /// Adds p50, p99 and the maximum of a histogram of microseconds, in milliseconds.
    pub fn with_latency(self, name: &str, histogram: &Histogram<u64>) -> Row {
        let ms = |us: u64| us as f64 / 1_000.0;
        self.with(&format!("{name}_p50_ms"), ms(histogram.value_at_quantile(0.5)))
            .with(&format!("{name}_p99_ms"), ms(histogram.value_at_quantile(0.99)))
            .with(&format!("{name}_max_ms"), ms(histogram.max()))
    }
}

/// What a scenario could not do, and why.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Failure {
    pub scenario: String,
    pub why: String,
}

/// A whole run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    pub machine: Machine,
    /// Small numbers of everything: shows that it works, not how well.
    pub is_quick: bool,
    pub rows: Vec<Row>,
    pub failures: Vec<Failure>,
}

/// Where it was measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Machine {
    pub cpu: String,
    pub cores: usize,
    pub memory_mib: u64,
    pub kernel: String,
    pub commit: String,
    pub date: String,
}

impl Machine {
    /// This machine, as far as it says.
    pub fn here() -> Machine {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.trim().strip_prefix(':'));
            line.unwrap_or_default().trim().to_owned()
        };
        let memory = read("/proc/meminfo");
        let memory = memory.lines().next().and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
        Machine {
            cpu: field(&read("/proc/cpuinfo"), "model name"),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_mib: memory.unwrap_or(0_u64) / 1024,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            commit: words(&["git", "describe", "--always", "--dirty", "--abbrev=10"]),
            date: words(&["date", "-u", "+%Y-%m-%d"]),
        }
    }
}

/// What a program says, or nothing.
fn words(command: &[&str]) -> String {
    let output = Command::new(command[0]).args(&command[1..]).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}

impl Machine {
    /// One line about it.
    pub fn line(&self) -> String {
        let Machine { cpu, cores, memory_mib, kernel, commit, date } = self;
        format!("{cores} cores ({cpu}), {memory_mib} MiB, Linux {kernel}, commit {commit}, {date}")
    }
}

impl Report {
    /// Replaces rows that were measured several times by one with the median of each figure.
    pub fn take_medians(&mut self) {
        let mut medians: Vec<Row> = Vec::new();
        for row in &self.rows {
            let same = |r: &Row| (&r.scenario, &r.server, &r.case) == (&row.scenario, &row.server, &row.case);
            if medians.iter().any(same) {
                continue;
            }
            let all: Vec<&Row> = self.rows.iter().filter(|r| same(r)).collect();
            let mut figures = BTreeMap::new();
            for name in row.figures.keys() {
                let values = all.iter().filter_map(|row| row.figures.get(name).copied()).collect();
                figures.insert(name.clone(), median(values));
            }
            medians.push(Row { figures, ..row.clone() });
        }
        self.rows = medians;
    }

    /// A figure, if it was measured.
    pub fn figure(&self, scenario: &str, server: &str, case: &str, name: &str) -> Option<f64> {
        let is_it = |row: &&Row| row.scenario == scenario && row.server == server && row.case == case;
        self.rows.iter().find(is_it)?.figures.get(name).copied()
    }

    /// The figures as tables of Markdown, one for each scenario.
    pub fn tables(&self) -> String {
        let mut text = String::new();
        let mut scenarios: Vec<&str> = self.rows.iter().map(|row| row.scenario.as_str()).collect();
        scenarios.dedup();
        for scenario in scenarios {
            let rows: Vec<&Row> = self.rows.iter().filter(|row| row.scenario == scenario).collect();
            let mut names: Vec<&str> = Vec::new();
            for name in rows.iter().flat_map(|row| row.figures.keys()) {
                if !names.contains(&name.as_str()) {
                    names.push(name);
                }
            }
            let mut lines = vec![vec!["case".to_owned(), "server".to_owned()]];
            lines[0].extend(names.iter().map(|name| name.replace('_', " ")));
            for row in &rows {
                let mut line = vec![row.case.clone(), row.server.clone()];
                let figure = |name: &&str| row.figures.get(*name).map_or(String::new(), |v| number(*v));
                line.extend(names.iter().map(figure));
                lines.push(line);
            }
            if names.len() > 2 * rows.len() {
                lines = transposed(&lines);
            }
            let _ = writeln!(text, "### {scenario}\n\n{}", table(&lines));
        }
        for failure in &self.failures {
            let _ = writeln!(text, "FAILED {}: {}\n", failure.scenario, failure.why);
        }
        text
    }

    /// Writes the JSON.
    pub fn save(&self, path: &Path) -> Result<()> {
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory)?;
        }
        std::fs::write(path, serde_json::to_string_pretty(self)? + "\n")
            .with_context(|| format!("writing {}", path.display()))
    }
}

/// A table of Markdown; the first line is its head.
pub fn table(lines: &[Vec<String>]) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let cell = |line: &Vec<String>, column: usize| line.get(column).cloned().unwrap_or_default();
    let widths: Vec<usize> = (0..columns)
        .map(|column| lines.iter().map(|line| cell(line, column).chars().count()).max().unwrap_or(0).max(3))
        .collect();
    let mut text = String::new();
    for (place, line) in lines.iter().enumerate() {
        for (column, width) in widths.iter().enumerate() {
            // Words to the left, figures to the right.
            let cell = cell(line, column);
            let pad = " ".repeat(width - cell.chars().count());
            let _ = if column < 2 { write!(text, "| {cell}{pad} ") } else { write!(text, "| {pad}{cell} ") };
        }
        text.push_str("|\n");
        if place == 0 {
            for (column, width) in widths.iter().enumerate() {
                let line = "-".repeat(width - 1);
                let _ = if column < 2 { write!(text, "| {line}- ") } else { write!(text, "| {line}: ") };
            }
            text.push_str("|\n");
        }
    }
    text
}

/// Lines as columns: for few cases with many figures.
fn transposed(lines: &[Vec<String>]) -> Vec<Vec<String>> {
    let columns = lines.first().map_or(0, Vec::len);
    (0..columns).map(|column| lines.iter().map(|line| line[column].clone()).collect()).collect()
}

/// A number as a person reads it: three digits that count, thousands apart.
pub fn number(value: f64) -> String {
    let decimals = match value.abs() {
        v if v >= 100.0 || v == 0.0 => 0,
        v if v >= 10.0 => 1,
        _ => 2,
    };
    let text = format!("{value:.decimals$}");
    let (whole, rest) = text.split_once('.').map_or((text.as_str(), None), |(w, r)| (w, Some(r)));
    let mut grouped = String::new();
    for (place, digit) in whole.chars().enumerate() {
        if place > 0 && (whole.len() - place) % 3 == 0 && digit.is_ascii_digit() && !grouped.ends_with('-') {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    rest.map_or(grouped.clone(), |rest| format!("{grouped}.{rest}"))
}

/// The middle one, or the mean of the two in the middle.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        count if count % 2 == 1 => values[count / 2],
        count => (values[count / 2 - 1] + values[count / 2]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(case: &str, value: f64) -> Row {
        Row::new("s", "magpie", case).with("a_ms", value)
    }

    #[test]
    fn rows_of_several_rounds_become_one_with_the_medians() {
        let rows = vec![row("x", 3.0), row("y", 7.0), row("x", 1.0), row("x", 100.0)];
        let machine = Machine::here();
        let mut report = Report { machine, is_quick: true, rows, failures: Vec::new() };
        report.take_medians();
        assert_eq!(report.rows.len(), 2);
        assert_eq!(report.figure("s", "magpie", "x", "a_ms"), Some(3.0));
        assert_eq!(report.figure("s", "magpie", "y", "a_ms"), Some(7.0));
        assert_eq!(report.figure("s", "magpie", "z", "a_ms"), None);
        assert_eq!(median(vec![4.0, 1.0]), 2.5);
    }

    #[test]
    fn numbers_are_readable() {
        for (value, text) in [
            (0.0, "0"),
            (0.123, "0.12"),
            (9.99, "9.99"),
            (12.34, "12.3"),
            (999.6, "1,000"),
            (1_234_567.0, "1,234,567"),
            (-1_234.0, "-1,234"),
        ] {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn tables_are_markdown() {
        let lines =
            [vec!["case".into(), "server".into(), "ms".into()], vec!["a".into(), "b".into(), "1".into()]];
        assert_eq!(
            table(&lines),
            "| case | server |  ms |\n| ---- | ------ | --: |\n| a    | b      |   1 |\n"
        );
    }
}
