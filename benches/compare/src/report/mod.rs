//! What a run leaves behind: a table with the marks, the figures of all rounds, charts.

mod chart;
mod json;
mod machine;
mod marks;
mod table;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::measure::results::Results;

/// Writes everything into a directory, which is made.
pub(crate) fn write(results: &Results, directory: &Path) -> Result<()> {
    let in_directory = || directory.display().to_string();
    fs::create_dir_all(directory).with_context(in_directory)?;
    let write = |file: &str, text: String| {
        fs::write(directory.join(file), text).with_context(|| format!("{file}: {}", in_directory()))
    };
    let charts = chart::all(results);
    write("results.md", table::of(results, &charts))?;
    write("results.json", json::of(results)?)?;
    for chart in charts {
        write(chart.file, chart.svg)?;
    }
    Ok(())
}
