//! From JSON text to a value. The grammar of JSON is left to serde_json; what the `$` keys mean,
//! and which numbers and objects are refused, is decided here.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rmpv::Value;

use super::build::{Rules, build};
use super::{JsonError, TIMESTAMP, time};

/// The bytes of a text that an error shows.
const MAX_SHOWN_BYTES: usize = 200;

pub(super) fn read(text: &str) -> Result<Value, JsonError> {
    let value = build(text, Strict).map_err(syntax_error)?;
    check_integers(text)?;
    Ok(value)
}

fn syntax_error(error: serde_json::Error) -> JsonError {
    let (line, column) = (error.line(), error.column());
    let mut problem = error.to_string();
    let place = format!(" at line {line} column {column}");
    problem.truncate(problem.strip_suffix(&place).map_or(problem.len(), str::len));
    problem.push_str(match problem.as_str() {
        "key must be a string" => {
            "; put it in double quotes, or write the map as {\"$map\": [[key, value], ..]}"
        }
        "expected ident" => "; write true, false, null, a number, or text in double quotes",
        "number out of range" => "; write a string, or infinity as {\"$float\": \"Infinity\"}",
        "recursion limit exceeded" => "; nest at most 127 arrays and objects",
        "trailing characters" => "; write one value only",
        _ => "",
    });
    JsonError { line, column: column.max(1), problem }
}

/// Finds integers that serde_json has handed on as floats, in text it has found to be JSON.
///
/// A visitor cannot tell: `18446744073709551616` and `18446744073709551616.0` reach it alike.
fn check_integers(text: &str) -> Result<(), JsonError> {
    let mut rest = text;
    while let Some(skipped) = rest.find(|c: char| matches!(c, '"' | '-' | '0'..='9')) {
        let (_, token) = rest.split_at(skipped);
        if let Some(string) = token.strip_prefix('"') {
            let mut chars = string.chars();
            while let Some(c) = chars.next().filter(|&c| c != '"') {
                if c == '\\' {
                    chars.next();
                }
            }
            rest = chars.as_str();
            continue;
        }
        let end = token.find(|c: char| !matches!(c, '-' | '+' | '.' | 'e' | 'E' | '0'..='9'));
        let (number, after) = token.split_at(end.unwrap_or(token.len()));
        let is_float = number.contains(['.', 'e', 'E']);
        let fits = number.parse::<i64>().is_ok() || number.parse::<u64>().is_ok();
        if number == "-0" || !(is_float || fits) {
            let (before, _) = text.split_at(text.len() - token.len());
            let problem = if fits {
                "-0 is no integer; write 0, or -0.0 for the float"
            } else {
                "integer outside i64::MIN..=u64::MAX; write a string, or a float by adding .0"
            };
            return Err(JsonError {
                line: before.matches('\n').count() + 1,
                column: before.len() - before.rfind('\n').map_or(0, |at| at + 1) + 1,
                problem: problem.into(),
            });
        }
        rest = after;
    }
    Ok(())
}

#[derive(Clone, Copy)]
struct Strict;

impl Rules for Strict {
    fn second_key(self, key: &str) -> Result<(), String> {
        let key = beginning(key);
        Err(format!("second key {key:?} in one object; write {{\"$map\": [[key, value], ..]}}"))
    }

    fn only_entry(self, key: Value, value: Value) -> Result<Value, String> {
        match key.as_str().and_then(|key| key.strip_prefix('$')) {
            None => Ok(Value::Map(vec![(key, value)])),
            Some(name) if name.starts_with('$') => Ok(Value::Map(vec![(name.into(), value)])),
            Some(name) => read_tagged(name, value).map_err(|problem| {
                let (name, problem) = (beginning(name), beginning(&problem));
                let [key, escaped] = [format!("${name}"), format!("$${name}")];
                format!("{key:?} {problem}; for a map with the key {key:?} write {escaped:?}")
            }),
        }
    }
}

/// What an error shows of a text, which may have megabytes: each of its copies has them too.
fn beginning(text: &str) -> Cow<'_, str> {
    match text.len() {
        0..=MAX_SHOWN_BYTES => text.into(),
        _ => format!("{}..", &text[..text.floor_char_boundary(MAX_SHOWN_BYTES)]).into(),
    }
}

/// Reads what stands under `$name`, or says what is wrong with it.
pub(super) fn read_tagged(name: &str, value: Value) -> Result<Value, String> {
    match (name, value) {
        ("bin", value) => from_base64(&value).map(Value::Binary),
        ("ext", Value::Array(ref parts)) if let [kind, bytes] = parts.as_slice() => {
            match kind.as_i64().map(i8::try_from) {
                Some(Ok(kind)) => Ok(Value::Ext(kind, from_base64(bytes)?)),
                _ => Err("needs a type from -128 to 127 in front".into()),
            }
        }
        ("ext", _) => Err("needs [type, \"<base64>\"]".into()),
        ("float", value) => match value.as_str() {
            Some("NaN") => Ok(f64::NAN.into()),
            Some("Infinity") => Ok(f64::INFINITY.into()),
            Some("-Infinity") => Ok(f64::NEG_INFINITY.into()),
            _ => Err("needs \"NaN\", \"Infinity\" or \"-Infinity\"".into()),
        },
        ("map", Value::Array(pairs)) => {
            let entry = |pair| match pair {
                Value::Array(pair) => <[Value; 2]>::try_from(pair).ok().map(<(Value, Value)>::from),
                _ => None,
            };
            let entries = pairs.into_iter().map(entry).collect::<Option<_>>();
            entries
                .map(Value::Map)
                .ok_or_else(|| "needs two values, [key, value], in each pair".into())
        }
        ("map", _) => Err("needs an array of pairs, [[key, value], ..]".into()),
        ("time", value) => {
            let text = value.as_str().ok_or("needs a string")?;
            time::to_bytes(text).map(|bytes| Value::Ext(TIMESTAMP, bytes))
        }
        _ => Err("is none of $bin, $ext, $float, $map and $time".into()),
    }
}

fn from_base64(value: &Value) -> Result<Vec<u8>, String> {
    let text = value.as_str().ok_or("needs a string of base64")?;
    STANDARD.decode(text).map_err(|error| format!("needs standard base64 with padding: {error}"))
}
