//! Charts: bars in SVG, on a card of their own that is light or dark as the reader's system is.

use std::fmt::Write;

use super::table::grouped;
use crate::contestants::Contestant;
use crate::measure::results::{Figures, Results};
use crate::rows::{CONNECTIONS, Row};

const WIDTH: f64 = 760.0;
const MARGIN: f64 = 24.0;
const LABEL_WIDTH: f64 = 132.0;
const VALUE_WIDTH: f64 = 96.0;
const BAR_HEIGHT: f64 = 22.0;
const BAR_GAP: f64 = 8.0;
const GROUP_GAP: f64 = 16.0;
const TITLE_HEIGHT: f64 = 72.0;

/// The colours' contrast is good on both cards.
const STYLE: &str = "
    text { font: 13px system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif; fill: #1f2328; }
    .title { font-size: 16px; font-weight: 600; }
    .unit, .group { fill: #59636e; }
    .value { font-variant-numeric: tabular-nums; }
    .card { fill: #ffffff; stroke: #d1d9e0; }
    .ours { fill: #0f766e; }
    .floor { fill: #9aa4af; }
    .peer { fill: #c2703d; }
    .axis { stroke: #d1d9e0; }
    @media (prefers-color-scheme: dark) {
      text { fill: #f0f6fc; }
      .unit, .group { fill: #9198a1; }
      .card { fill: #0d1117; stroke: #3d444d; }
      .ours { fill: #2dd4bf; }
      .floor { fill: #656c76; }
      .peer { fill: #d98a55; }
      .axis { stroke: #3d444d; }
    }
  ";

/// A chart, and the file that it goes to.
#[derive(Debug)]
pub(crate) struct Chart {
    pub(crate) file: &'static str,
    pub(crate) title: &'static str,
    pub(crate) svg: String,
}

struct Bar {
    contestant: Contestant,
    value: f64,
    text: String,
}

struct Group {
    name: Option<String>,
    bars: Vec<Bar>,
}

/// The charts for which there are figures.
pub(crate) fn all(results: &Results) -> Vec<Chart> {
    let rate = |figures: Figures| figures.requests_per_second;
    let cpu = |figures: Figures| figures.server_cpu_us;
    let whole: fn(f64) -> String = grouped;
    let hundredths: fn(f64) -> String = |value| format!("{value:.2}");
    let shared = group(results, Row::Shared { callers: 256 }, None, rate, whole);
    let lockstep = Row::Lockstep { connections: CONNECTIONS };
    let lockstep = group(results, lockstep, None, cpu, hundredths);
    let callers = [1, 64, 256, 1024].map(|callers| {
        let name = match callers {
            1 => "1 caller".to_owned(),
            _ => format!("{} callers", grouped(callers as f64)),
        };
        group(results, Row::Shared { callers }, Some(name), rate, whole)
    });
    let charts = [
        (
            "shared-client.svg",
            "One client shared by 256 callers",
            "requests per second, more is better",
            vec![shared],
        ),
        (
            "server-cpu.svg",
            "What a request costs the server, lockstep on 64 connections",
            "microseconds of the server's CPU time per request, less is better",
            vec![lockstep],
        ),
        (
            "callers.svg",
            "One client shared by more and more callers",
            "requests per second, more is better",
            callers.into(),
        ),
    ];
    let has_bars = |groups: &[Group]| groups.iter().any(|group| !group.bars.is_empty());
    let charts = charts.into_iter().filter(|(_, _, _, groups)| has_bars(groups));
    charts.map(|(file, title, unit, groups)| draw(file, title, unit, &groups)).collect()
}

fn group(
    results: &Results,
    row: Row,
    name: Option<String>,
    of: impl Fn(Figures) -> f64,
    text: fn(f64) -> String,
) -> Group {
    let bars = row.contestants().into_iter().filter_map(|contestant| {
        let value = of(results.median(row, contestant)?);
        Some(Bar { contestant, value, text: text(value) })
    });
    Group { name, bars: bars.collect() }
}

fn draw(file: &'static str, title: &'static str, unit: &str, groups: &[Group]) -> Chart {
    let most = groups.iter().flat_map(|group| &group.bars).map(|bar| bar.value).fold(0.0, f64::max);
    let left = MARGIN + LABEL_WIDTH;
    let scale = (WIDTH - left - VALUE_WIDTH - MARGIN) / most;
    let mut bars = String::new();
    let mut y = TITLE_HEIGHT;
    // Writing to a String cannot fail.
    for group in groups.iter().filter(|group| !group.bars.is_empty()) {
        if let Some(name) = &group.name {
            let _ = writeln!(
                bars,
                r#"  <text class="group" x="{MARGIN}" y="{}">{name}</text>"#,
                y + 14.0
            );
            y += BAR_HEIGHT;
        }
        let top = y;
        for Bar { contestant, value, text } in &group.bars {
            let width = (value * scale).max(1.0);
            let (middle, behind) = (y + BAR_HEIGHT / 2.0 + 4.5, left + width + 8.0);
            let end = left - 10.0;
            let class = class(*contestant);
            let _ = write!(
                bars,
                r#"  <text x="{end}" y="{middle}" text-anchor="end">{contestant}</text>
  <rect class="{class}" x="{left}" y="{y}" width="{width:.1}" height="{BAR_HEIGHT}" rx="2"/>
  <text class="value" x="{behind:.1}" y="{middle}">{text}</text>
"#
            );
            y += BAR_HEIGHT + BAR_GAP;
        }
        let bottom = y - BAR_GAP;
        let _ = writeln!(
            bars,
            r#"  <line class="axis" x1="{left}" y1="{}" x2="{left}" y2="{}"/>"#,
            top - 4.0,
            bottom + 4.0
        );
        y += GROUP_GAP - BAR_GAP;
    }
    let height = y + 8.0;
    let svg = format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{title}: {unit}">
  <style>{STYLE}</style>
  <rect class="card" x="0.5" y="0.5" width="{}" height="{}" rx="6"/>
  <text class="title" x="{MARGIN}" y="34">{title}</text>
  <text class="unit" x="{MARGIN}" y="54">{unit}</text>
{bars}</svg>
"#,
        WIDTH - 1.0,
        height - 1.0
    );
    Chart { file, title, svg }
}

fn class(contestant: Contestant) -> &'static str {
    match contestant {
        Contestant::Floor => "floor",
        Contestant::Arrpc(_) => "ours",
        Contestant::Python | Contestant::Tarpc(_) | Contestant::Tonic | Contestant::Jsonrpsee => {
            "peer"
        }
    }
}
