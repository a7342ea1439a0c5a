//! From JSON text that others wrote to a value: what merely looks like one of our escapes is taken
//! as it stands.

use rmpv::Value;

use super::build::{Rules, build};
use super::read::read_tagged;

/// Reads the value that JSON text stands for, also if it is not that of
/// [`to_string`](super::to_string): an object whose only key begins with `$` is itself unless it is
/// a well-formed escape, the last of two equal keys counts, and an integer that no MessagePack has
/// is the nearest float.
pub(crate) fn from_str_lenient(text: &str) -> Result<Value, serde_json::Error> {
    build(text, Lenient)
}

#[derive(Clone, Copy)]
struct Lenient;

impl Rules for Lenient {
    fn second_key(self, _: &str) -> Result<(), String> {
        Ok(())
    }

    fn only_entry(self, key: Value, value: Value) -> Result<Value, String> {
        let read = match key.as_str().and_then(|key| key.strip_prefix('$')) {
            None => None,
            Some(name) if name.starts_with('$') => {
                return Ok(Value::Map(vec![(name.into(), value)]));
            }
            // What these copy is no deeper than this: nested ones would be copied once a level.
            Some(name @ ("bin" | "float" | "time")) if value.is_str() => {
                read_tagged(name, value.clone()).ok()
            }
            Some("ext") if is_pair(&value) && value[1].is_str() => {
                read_tagged("ext", value.clone()).ok()
            }
            Some("map") if value.as_array().is_some_and(|pairs| pairs.iter().all(is_pair)) => {
                return read_tagged("map", value);
            }
            Some(_) => None,
        };
        Ok(read.unwrap_or_else(|| Value::Map(vec![(key, value)])))
    }
}

fn is_pair(value: &Value) -> bool {
    value.as_array().is_some_and(|items| items.len() == 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value;

    #[track_caller]
    fn check(json: &str, expected: Value) {
        assert_eq!(from_str_lenient(json).expect(json), expected, "{json}");
    }

    #[test]
    fn well_formed_escapes_are_what_they_stand_for() {
        check(r#"{"$bin": "AQI="}"#, Value::Binary(vec![1, 2]));
        check(r#"{"$ext": [5, "AAE="]}"#, Value::Ext(5, vec![0, 1]));
        check(r#"{"$float": "Infinity"}"#, f64::INFINITY.into());
        check(r#"{"$map": [[1, {"$map": []}]]}"#, value!({1: {}}));
        check(r#"{"$$bin": 1}"#, value!({"$bin": 1}));
        check(r#"[{"$time": "1970-01-01T00:00:01Z"}]"#, value!([Value::Ext(-1, vec![0, 0, 0, 1])]));
    }

    #[test]
    fn what_only_looks_like_an_escape_is_itself() {
        check(r#"{"$bin": "no base64!"}"#, value!({"$bin": "no base64!"}));
        check(r#"{"$bin": {"$bin": 1}}"#, value!({"$bin": {"$bin": 1}}));
        check(r#"{"$ext": [500, "AAE="]}"#, value!({"$ext": [500, "AAE="]}));
        check(r#"{"$ext": [5, [1]]}"#, value!({"$ext": [5, [1]]}));
        check(r#"{"$float": "1.5"}"#, value!({"$float": "1.5"}));
        check(r#"{"$map": [[1, 2], [3]]}"#, value!({"$map": [[1, 2], [3]]}));
        check(r#"{"$time": "noon"}"#, value!({"$time": "noon"}));
        check(r#"{"$gt": 5}"#, value!({"$gt": 5}));
        check(r#"{"$": 5}"#, value!({"$": 5}));
        check(r#"{"$ref": "a", "$id": 1}"#, value!({"$ref": "a", "$id": 1}));
    }

    #[test]
    fn json_that_ours_never_writes_is_read() {
        check(r#"{"a": 1, "b": 2, "a": 3}"#, value!({"a": 3, "b": 2}));
        check(r#"{"$bin": 1, "$bin": "AQI="}"#, Value::Binary(vec![1, 2]));
        check("18446744073709551616", 18446744073709551616.0.into());
        check("18446744073709551615", u64::MAX.into());
        check("-0", (-0.0).into());
    }

    #[test]
    fn no_json_and_too_deep_json_is_refused() {
        for text in ["", "NaN", "1 2", "{'a': 1}", "1e999", &"[".repeat(100_000)] {
            from_str_lenient(text).expect_err("it cannot be read");
        }
    }
}
