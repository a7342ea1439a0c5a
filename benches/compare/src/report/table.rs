//! The figures in Markdown.

use std::fmt::Write;

use super::chart::Chart;
use super::{machine, marks};
use crate::arguments::Scale;
use crate::contestants::Contestant;
use crate::measure::results::{Figures, Measured, Outcome, Results};
use crate::rows::Row;

/// The whole document.
pub(crate) fn of(results: &Results, charts: &[Chart]) -> String {
    let mut out = String::from("# arrpc beside other servers\n\n");
    if results.scale == Scale::Small {
        out += "**A small run, which shows that everything works. Its figures mean nothing.**\n\n";
    }
    // Writing to a String cannot fail, here and below.
    let _ = writeln!(
        out,
        "{}. {}, Python arrpc 0.5.0. Medians of {} by the server's CPU time. A bare HMAC-SHA256 of \
         the small message takes {:.0} ns. Meanwhile everything else on the machine kept {:.2} \
         processors busy.\n",
        machine::description(),
        machine::versions().join(", "),
        match results.rounds {
            1 => "one round".to_owned(),
            rounds => format!("{rounds} rounds"),
        },
        results.hmac_ns(),
        results.others_cpus()
    );
    for chart in charts {
        let _ = writeln!(out, "![{}]({})\n", chart.title, chart.file);
    }
    let _ = writeln!(out, "## Marks\n\n{}", marks::table(&marks::of(results)));
    for rows in results.rows.chunk_by(|one, other| one.row.heading() == other.row.heading()) {
        section(rows, results, &mut out);
    }
    out.truncate(out.trim_end().len());
    out + "\n"
}

/// The rows below one heading.
fn section(rows: &[Measured], results: &Results, out: &mut String) {
    let Some(first) = rows.first() else { return };
    let _ = writeln!(out, "## {}\n", first.row.heading());
    let has_floor = first.row.contestants().contains(&Contestant::Floor);
    let is_payload = matches!(first.row, Row::Payload { .. });
    let mut columns = vec!["", "server", "requests/s"];
    columns.extend(is_payload.then_some("MiB/s each way"));
    columns.extend(["p50 us", "p99 us", "p99.9 us", "server CPU us/request"]);
    columns.extend(has_floor.then_some("to the floor's"));
    columns.extend(["client CPU us/request", "server memory MiB"]);
    line(&columns, out);
    let rule = |column: &&str| if matches!(*column, "" | "server") { "---" } else { "---:" };
    line(&columns.iter().map(rule).collect::<Vec<_>>(), out);
    for measured in rows {
        let mut cells = vec![measured.row.to_string(), measured.contestant.to_string()];
        cells.extend(figures(measured, is_payload, has_floor.then_some(results)));
        line(&cells, out);
    }
    out.push('\n');
}

/// The cells behind the names; the first says why there are none.
fn figures(measured: &Measured, is_payload: bool, floor: Option<&Results>) -> Vec<String> {
    let Some(figures) = measured.median() else {
        return vec![match &measured.outcome {
            Outcome::Absent(why) => format!("not measured: {}", one_line(why)),
            Outcome::Failed(why) => format!("failed: {}", one_line(why)),
            Outcome::Rounds(_) => "not measured".to_owned(),
        }];
    };
    let mut cells = vec![grouped(figures.requests_per_second)];
    if let (true, Row::Payload { bytes }) = (is_payload, measured.row) {
        let mebibytes = bytes as f64 / f64::from(1 << 20);
        cells.push(format!("{:.1}", figures.requests_per_second * mebibytes));
    }
    cells.extend([figures.p50_us, figures.p99_us, figures.p999_us].map(grouped));
    cells.push(micros(figures.server_cpu_us));
    if let Some(results) = floor {
        let pair = [measured.contestant, Contestant::Floor];
        let ratio = |one: Figures, floor: Figures| one.server_cpu_us / floor.server_cpu_us;
        let ratio = results.paired(measured.row, pair, ratio);
        cells.push(ratio.map_or(String::new(), |ratio| format!("{ratio:.2}")));
    }
    cells.push(micros(figures.client_cpu_us));
    cells.push(format!("{:.1}", figures.server_memory_mib));
    cells
}

fn line(cells: &[impl AsRef<str>], out: &mut String) {
    for cell in cells {
        let _ = write!(out, "| {} ", cell.as_ref());
    }
    out.push_str("|\n");
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "/")
}

fn micros(value: f64) -> String {
    match value {
        ..100.0 => format!("{value:.2}"),
        _ => grouped(value),
    }
}

/// A whole number with commas between its thousands.
pub(crate) fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().filter_map(|group| str::from_utf8(group).ok()).collect();
    groups.join(",")
}
