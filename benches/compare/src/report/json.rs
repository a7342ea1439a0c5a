//! The figures of all rounds, for programs.

use anyhow::Result;
use serde_json::{Value, json};

use super::{machine, marks};
use crate::arguments::Scale;
use crate::measure::results::{Measured, Outcome, Results};

pub(crate) fn of(results: &Results) -> Result<String> {
    let json = json!({
        "small": results.scale == Scale::Small,
        "machine": machine::description(),
        "versions": machine::versions(),
        "hmac_ns": results.hmac_ns(),
        "others_cpus": results.others_cpus(),
        "rows": results.rows.iter().map(measured).collect::<Vec<_>>(),
        "marks": marks::of(results).iter().map(marks::Mark::json).collect::<Vec<_>>(),
    });
    Ok(serde_json::to_string_pretty(&json)? + "\n")
}

fn measured(measured: &Measured) -> Value {
    let row = measured.row.to_string();
    let contestant = measured.contestant.to_string();
    match &measured.outcome {
        Outcome::Rounds(rounds) => json!({"row": row, "contestant": contestant, "rounds": rounds}),
        Outcome::Absent(why) => json!({"row": row, "contestant": contestant, "absent": why}),
        Outcome::Failed(why) => json!({"row": row, "contestant": contestant, "failed": why}),
    }
}
