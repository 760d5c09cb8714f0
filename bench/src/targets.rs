//! What is asked of Magpie, and whether a run shows it.

use bench::report::{self, Report};

/// One demand on the figures of a run.
struct Target {
    what: &'static str,
    /// With its unit.
    asked: &'static str,
    /// The figure; `None` if the run does not have it.
    measured: fn(&Report) -> Option<f64>,
    bound: Bound,
}

enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

use Bound::{AtLeast, AtMost};

const TARGETS: [Target; 10] = [
    Target {
        what: "deliveries per second, saturated, 1,000 members, over the plain warp's",
        asked: "at least 6 times",
        measured: |report| saturated(report, "deliveries_per_s").reduce(f64::min),
        bound: AtLeast(6.0),
    },
    Target {
        what: "p99 of a delivery there, over the plain warp's",
        asked: "at most 0.1",
        measured: |report| saturated(report, "delivery_p99_ms").reduce(f64::max),
        bound: AtMost(0.1),
    },
    Target {
        what: "CPU per delivery, one at a time, 1,000 members, over the bare `send()`",
        asked: "at most 1.3",
        measured: |report| {
            let cpu = |server| report.figure("fan-out", server, LONE, "cpu_ns_per_delivery");
            Some(cpu("magpie")? / cpu("floor")?)
        },
        bound: AtMost(1.3),
    },
    Target {
        what: "memory per idle connection, 10,000 of them",
        asked: "at most 6,000 bytes",
        measured: |report| report.figure("idle", "magpie", IDLE, "rss_bytes_per_connection"),
        bound: AtMost(6_000.0),
    },
    Target {
        what: "memory of the program alone",
        asked: "at most 20 MB",
        measured: |report| report.figure("idle", "magpie", IDLE, "rss_alone_mb"),
        bound: AtMost(20.0),
    },
    Target {
        what: "10,000 clients cut at once are back with all they missed",
        asked: "within 3 s",
        measured: |report| report.figure("storm", "magpie", STORM, "all_back_s"),
        bound: AtMost(3.0),
    },
    Target {
        what: "durable sends",
        asked: "at least 20,000 per second",
        measured: |report| {
            let rates = ["256", "512", "1024"].map(|in_flight| {
                report.figure("durable", "magpie", &format!("{in_flight} in flight"), "sends_per_s")
            });
            rates.into_iter().flatten().reduce(f64::max)
        },
        bound: AtLeast(20_000.0),
    },
    Target {
        what: "p99 of the acknowledgement at 5,000 sends per second",
        asked: "under 50 ms",
        measured: |report| report.figure("durable", "magpie", "5000 a second", "ack_p99_ms"),
        bound: AtMost(50.0),
    },
    Target {
        what: "CPU per delivery with up to 20,000 rooms and 10,000 idle connections, over that with 10 and none",
        asked: "the same (at most 1.1)",
        measured: |report| {
            let growth = ["one at a time", "bursts of 10"].map(|case| {
                let cpu = |rooms: u32, idle: u32| {
                    let case = format!("{rooms} rooms, {idle} idle, {case}");
                    report.figure("rooms", "magpie", &case, "cpu_ns_per_delivery")
                };
                let most = [1_000, 20_000]
                    .into_iter()
                    .flat_map(|rooms| [cpu(rooms, 0), cpu(rooms, 10_000)])
                    .flatten()
                    .reduce(f64::max)?;
                Some(most / cpu(10, 0)?)
            });
            growth.into_iter().flatten().reduce(f64::max)
        },
        bound: AtMost(1.1),
    },
    Target {
        what: "p99 of the others with one slow reader among 1,000, over that without",
        asked: "at most 1.1",
        measured: |report| {
            let p99 = |slow: u32| {
                let case = format!("1000 members, {slow} slow");
                report.figure("slow", "magpie", &case, "delivery_p99_ms")
            };
            Some(p99(1)? / p99(0)?)
        },
        bound: AtMost(1.1),
    },
];

const LONE: &str = "1000 members, one at a time";
const IDLE: &str = "10000 connections";
const STORM: &str = "10000 clients cut, and back with all they missed";

/// A figure of Magpie over the same of the plain warp, in each of the saturated cases.
fn saturated<'a>(report: &'a Report, name: &'a str) -> impl Iterator<Item = f64> + 'a {
    [16, 64].into_iter().filter_map(move |window| {
        let case = format!("1000 members, 8 × {window} in flight");
        let figure = |server| report.figure("fan-out", server, &case, name);
        Some(figure("magpie")? / figure("plain-warp")?)
    })
}

/// Each demand on which the run has a figure, with that figure; `None` if there is none.
pub fn table(report: &Report) -> Option<String> {
    let mut lines = vec![["what", "asked", "measured", "met"].map(str::to_owned).to_vec()];
    for target in &TARGETS {
        let Some(measured) = (target.measured)(report) else { continue };
        let is_met = match target.bound {
            AtLeast(bound) => measured >= bound,
            AtMost(bound) => measured <= bound,
        };
        let verdict = if is_met { "yes" } else { "**no**" };
        lines.push(
            [target.what, target.asked, &report::number(measured), verdict].map(str::to_owned).to_vec(),
        );
    }
    (lines.len() > 1).then(|| report::table(&lines))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bench::report::{Machine, Row};

    #[test]
    fn a_demand_is_met_missed_or_not_measured() {
        let row = |server: &str, ns: f64| Row::new("fan-out", server, LONE).with("cpu_ns_per_delivery", ns);
        let idle = Row::new("idle", "magpie", IDLE).with("rss_alone_mb", 20.0);
        let rows = vec![row("magpie", 6_000.0), row("floor", 4_000.0), idle];
        let machine = Machine::here();
        let text = table(&Report { machine, is_quick: false, rows, failures: Vec::new() }).unwrap();
        let verdict = |what: &str| {
            let line = text.lines().find(|line| line.contains(what)).unwrap_or_default();
            line.split('|').map(str::trim).rev().take(3).skip(1).collect::<Vec<_>>()
        };
        assert_eq!(verdict("one at a time"), ["**no**", "1.50"]);
        assert_eq!(verdict("the program alone"), ["yes", "20.0"]);
        assert!(verdict("durable sends").is_empty());
    }
}
