//! The picture of a run: two groups of bars, drawn as SVG. Colours follow the reader's light or dark.

use std::fmt::Write;

use bench::report::{self, Report};

const MEMBERS: [u32; 3] = [100, 1_000, 5_000];
const SERVERS: [(&str, &str); 3] =
    [("magpie", "Magpie"), ("plain-warp", "plain warp"), ("floor", "bare send()")];

/// A group of bars: its title, the case that follows the members' count, and the figure.
struct Panel {
    title: &'static str,
    case: &'static str,
    figure: &'static str,
}

const PANELS: [Panel; 2] = [
    Panel {
        title: "Deliveries per second, 8 × 16 messages in flight",
        case: "8 × 16 in flight",
        figure: "deliveries_per_s",
    },
    Panel {
        title: "CPU ns per delivery, one message at a time",
        case: "one at a time",
        figure: "cpu_ns_per_delivery",
    },
];

const PANEL_WIDTH: f64 = 400.0;
const BARS_TOP: f64 = 50.0;
const BARS_HEIGHT: f64 = 210.0;
const BAR_WIDTH: f64 = 34.0;

const HEAD: &str = r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 800 330" role="img" aria-label="Magpie beside warp's own chat and a bare send loop">
<style>
  text { font: 13px system-ui, sans-serif; fill: #24292f; text-anchor: middle }
  .title { font-weight: 600 } .value { font-size: 11px } line { stroke: #8c959f }
  .magpie { fill: #1f6feb } .plain-warp { fill: #bc6c25 } .floor { fill: #8c959f }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .magpie { fill: #58a6ff } .plain-warp { fill: #e0a458 } .floor { fill: #6e7681 }
  }
</style>
"##;

/// Draws what a run measured; what it did not measure has no bar.
pub fn svg(report: &Report) -> String {
    let mut text = HEAD.to_owned();
    for (place, panel) in PANELS.iter().enumerate() {
        draw(report, panel, place as f64 * PANEL_WIDTH, &mut text);
    }
    for (place, (class, name)) in SERVERS.iter().enumerate() {
        let x = 270.0 + 110.0 * place as f64;
        let _ = writeln!(text, r#"<rect class="{class}" x="{}" y="303" width="12" height="12"/>"#, x - 6.0);
        let _ = writeln!(text, r#"<text x="{}" y="314" style="text-anchor:start">{name}</text>"#, x + 12.0);
    }
    text + "</svg>\n"
}

fn draw(report: &Report, panel: &Panel, left: f64, text: &mut String) {
    let value = |server: &str, members: u32| {
        report.figure("fan-out", server, &format!("{members} members, {}", panel.case), panel.figure)
    };
    let most = MEMBERS
        .iter()
        .flat_map(|members| SERVERS.map(|(server, _)| value(server, *members)))
        .flatten()
        .fold(1.0, f64::max);
    let bottom = BARS_TOP + BARS_HEIGHT;
    let middle = left + PANEL_WIDTH / 2.0;
    let _ = writeln!(text, r#"<text class="title" x="{middle}" y="22">{}</text>"#, panel.title);
    let _ = writeln!(
        text,
        r#"<line x1="{}" y1="{bottom}" x2="{}" y2="{bottom}"/>"#,
        left + 20.0,
        left + PANEL_WIDTH - 20.0
    );
    for (group, members) in MEMBERS.iter().enumerate() {
        let start = left + 38.0 + 120.0 * group as f64;
        let bars = SERVERS.iter().filter_map(|(server, _)| Some((server, value(server, *members)?)));
        let bars: Vec<_> = bars.collect();
        for (bar, (server, value)) in bars.iter().enumerate() {
            let (x, height) = (start + bar as f64 * BAR_WIDTH, value / most * BARS_HEIGHT);
            let (y, width) = (bottom - height, BAR_WIDTH - 3.0);
            let _ = writeln!(
                text,
                r#"<rect class="{server}" x="{x:.0}" y="{y:.1}" width="{width}" height="{height:.1}"/>"#
            );
            let _ = writeln!(
                text,
                r#"<text class="value" x="{:.0}" y="{:.1}">{}</text>"#,
                x + width / 2.0,
                y - 4.0,
                short(*value)
            );
        }
        let (x, y) = (start + bars.len() as f64 / 2.0 * BAR_WIDTH, bottom + 20.0);
        let members = report::number((*members).into());
        let _ = writeln!(text, r#"<text x="{x:.0}" y="{y}">{members} members</text>"#);
    }
}

/// A number in the room that a bar has.
fn short(value: f64) -> String {
    match value {
        v if v >= 1e6 => format!("{:.1}M", v / 1e6),
        v if v >= 1e4 => format!("{:.0}k", v / 1e3),
        v if v >= 1e3 => format!("{:.1}k", v / 1e3),
        v => format!("{v:.0}"),
    }
}
