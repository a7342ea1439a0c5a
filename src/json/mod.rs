//! A lossless mapping between MessagePack values and JSON text, for people and tools that speak
//! JSON. It does not know arrpc's messages, nor where the text comes from or goes to.
//!
//! What JSON can say is plain JSON. The rest is an object whose only key begins with `$`:
//!
//! | MessagePack | JSON |
//! |---|---|
//! | nil, bool, UTF-8 string, array | the same |
//! | integer, `i64::MIN` to `u64::MAX` | a number without point and exponent: `1` |
//! | finite float | a number with a point or an exponent: `1.0`, `1e300`, `-0.0` |
//! | NaN and the infinities | `{"$float": "NaN"}`, `"Infinity"`, `"-Infinity"` |
//! | bin | `{"$bin": "<base64>"}`, the standard alphabet with padding |
//! | ext | `{"$ext": [type, "<base64>"]}` |
//! | timestamp (ext type -1) | `{"$time": "<RFC 3339>"}` if it gives the same bytes back |
//! | map whose keys are distinct strings | an object, in the same order |
//! | any other map | `{"$map": [[key, value], ..]}` |
//! | map whose only key begins with `$` | an object with that `$` doubled: `{"$$bin": 1}` |
//!
//! Four things do not survive: a 32-bit float comes back as the 64-bit float of the same value, a
//! NaN without its payload bits, a string that is not valid UTF-8 as the bin of its bytes, and a
//! value whose JSON nests more than 127 arrays and objects is written but not read. Each level of
//! `$map` takes three of the 127.

mod build;
mod count;
mod lenient;
mod read;
mod time;
mod write;

use std::fmt;

use rmpv::Value;

pub(crate) use count::count_values;
pub(crate) use lenient::from_str_lenient;

/// The ext type the MessagePack spec reserves for timestamps.
const TIMESTAMP: i8 = -1;

/// Writes a value as JSON without white space.
///
/// Takes stack in proportion to the nesting of the value. 1024 levels fit a thread of
/// 2 MiB, in a debug build too.
///
/// ```
/// use rmpv::Value;
///
/// let value = Value::Map(vec![
///     (Value::from("id"), Value::from(u64::MAX)),
///     (Value::from("blob"), Value::Binary(vec![0xff])),
/// ]);
/// assert_eq!(
///     arrpc::json::to_string(&value),
///     r#"{"id":18446744073709551615,"blob":{"$bin":"/w=="}}"#,
/// );
/// ```
pub fn to_string(value: &Value) -> String {
    write::write(value, false)
}

/// Writes a value as JSON for people: an item to a line, indented by two spaces.
/// `$bin`, `$ext`, `$float` and `$time` stay on one line.
///
/// Takes stack as [`to_string`] does.
///
/// ```
/// use rmpv::Value;
///
/// let value = Value::Map(vec![(Value::from("ok"), Value::from(true))]);
/// assert_eq!(arrpc::json::to_string_pretty(&value), "{\n  \"ok\": true\n}");
/// ```
pub fn to_string_pretty(value: &Value) -> String {
    write::write(value, true)
}

/// Reads the value that JSON text stands for.
///
/// # Errors
///
/// Fails when the text is not exactly one JSON value of at most 127 nested arrays and objects, and
/// also where reading on would change what was meant:
/// - an integer outside `i64::MIN..=u64::MAX`, and `-0`, which is a float to some
///   readers of JSON and an integer to others;
/// - an object with a key twice: only `$map` can say that;
/// - an object whose only key begins with a single `$` and is none of those above, well-formed;
/// - a `$time` without an offset, finer than nanoseconds, at a leap second, or after
///   9999-12-30T22:00:00.999999999Z.
///
/// ```
/// use arrpc::json;
/// use rmpv::Value;
///
/// assert_eq!(json::from_str("[1, 1.0]")?, Value::Array(vec![1.into(), 1.0.into()]));
/// assert_eq!(json::from_str(r#"{"$ext": [5, "AAE="]}"#)?, Value::Ext(5, vec![0, 1]));
/// assert!(json::from_str("18446744073709551616").is_err());
/// # Ok::<(), json::JsonError>(())
/// ```
pub fn from_str(text: &str) -> Result<Value, JsonError> {
    read::read(text)
}

/// Why the text is not the JSON of a value.
///
/// Displays the line and the column, both counted from 1 and the column in bytes, then what is
/// wrong there and what to write instead.
///
/// ```
/// let error = arrpc::json::from_str("[1,\n  {\"$bim\": \"AA==\"}]").unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "line 2, column 18: \"$bim\" is none of $bin, $ext, $float, $map and $time; \
///      for a map with the key \"$bim\" write \"$$bim\"",
/// );
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonError {
    line: usize,
    column: usize,
    problem: String,
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, column, problem } = self;
        write!(f, "line {line}, column {column}: {problem}")
    }
}

impl std::error::Error for JsonError {}

#[cfg(test)]
mod tests {
    use std::thread;

    use proptest::prelude::*;

    use super::*;

    fn encoded(value: &Value) -> Vec<u8> {
        let mut bytes = Vec::new();
        rmpv::encode::write_value(&mut bytes, value).unwrap();
        bytes
    }

    /// Compares by encoding, in which NaN equals itself and 0.0 differs from -0.0.
    #[track_caller]
    fn check_read(json: &str, value: &Value) {
        let read = from_str(json).unwrap_or_else(|error| panic!("{json}: {error}"));
        assert_eq!(encoded(&read), encoded(value), "{json} read as {read}, not {value}");
    }

    #[track_caller]
    fn check(value: impl Into<Value>, json: &str) {
        let value = value.into();
        assert_eq!(to_string(&value), json);
        check_read(json, &value);
        check_read(&to_string_pretty(&value), &value);
    }

    #[track_caller]
    fn check_error(json: &str, line: usize, column: usize, problem: &str) {
        let error = from_str(json).expect_err(json).to_string();
        let place = format!("line {line}, column {column}: ");
        assert!(error.starts_with(&place) && error.contains(problem), "{json}: {error}");
    }

    fn array<const N: usize>(items: [Value; N]) -> Value {
        Value::Array(items.into())
    }

    fn map<K: Into<Value>, V: Into<Value>, const N: usize>(entries: [(K, V); N]) -> Value {
        Value::Map(entries.into_iter().map(|(key, value)| (key.into(), value.into())).collect())
    }

    fn timestamp_64(second: u64, nanosecond: u64) -> Value {
        Value::Ext(-1, (nanosecond << 34 | second).to_be_bytes().into())
    }

    fn timestamp_96(second: i64, nanosecond: u32) -> Value {
        Value::Ext(-1, [nanosecond.to_be_bytes().as_slice(), &second.to_be_bytes()].concat())
    }

    #[test]
    fn what_json_can_say_is_plain_json() {
        check(Value::Nil, "null");
        check(true, "true");
        check(0, "0");
        check(i64::MIN, "-9223372036854775808");
        check(u64::MAX, "18446744073709551615");
        check(1.0, "1.0");
        check(-0.0, "-0.0");
        check(0.1, "0.1");
        check(1e300, "1e300");
        check(f64::MAX, "1.7976931348623157e308");
        check(f64::from_bits(1), "5e-324");
        check("", r#""""#);
        check(
            "café \"\\/\r\n\t\0\u{7f}\u{2028}",
            "\"café \\\"\\\\/\\r\\n\\t\\u0000\u{7f}\u{2028}\"",
        );
        check(array([]), "[]");
        check(array([1.into(), array([Value::Nil])]), "[1,[null]]");
        check(map::<&str, Value, 0>([]), "{}");
        check(map([("b", 1), ("a", 2), ("", 3)]), r#"{"b":1,"a":2,"":3}"#);
    }

    #[test]
    fn what_json_cannot_say_is_tagged() {
        check(f64::NAN, r#"{"$float":"NaN"}"#);
        check(f64::INFINITY, r#"{"$float":"Infinity"}"#);
        check(f64::NEG_INFINITY, r#"{"$float":"-Infinity"}"#);
        check(Value::Binary(vec![]), r#"{"$bin":""}"#);
        check(Value::Binary(vec![0xfb, 0xff]), r#"{"$bin":"+/8="}"#);
        check(Value::Ext(-128, vec![0, 1]), r#"{"$ext":[-128,"AAE="]}"#);
        check(Value::Ext(127, vec![]), r#"{"$ext":[127,""]}"#);
        check(map([(1, 2)]), r#"{"$map":[[1,2]]}"#);
        check(map([("a", 1), ("b", 2), ("a", 3)]), r#"{"$map":[["a",1],["b",2],["a",3]]}"#);
        check(map([("$a", 1), ("$a", 2)]), r#"{"$map":[["$a",1],["$a",2]]}"#);
        check(map([(map([("$x", 1)]), f64::NAN)]), r#"{"$map":[[{"$$x":1},{"$float":"NaN"}]]}"#);
        check_read(r#"{"$map":[]}"#, &map::<&str, Value, 0>([]));
        check_read(r#"{"$map":[["$bin",2]]}"#, &map([("$bin", 2)]));
    }

    #[test]
    fn pretty_puts_an_item_on_a_line_and_a_tagged_one_on_one() {
        let value = map([
            ("bin", Value::Binary(vec![0])),
            ("ext", Value::Ext(5, vec![0])),
            ("empty", array([])),
            ("map", map([(1, f64::NAN)])),
        ]);
        let json = [
            r#"{"#,
            r#"  "bin": {"$bin": "AA=="},"#,
            r#"  "ext": {"$ext": [5, "AA=="]},"#,
            r#"  "empty": [],"#,
            r#"  "map": {"#,
            r#"    "$map": ["#,
            r#"      ["#,
            r#"        1,"#,
            r#"        {"$float": "NaN"}"#,
            r#"      ]"#,
            r#"    ]"#,
            r#"  }"#,
            r#"}"#,
        ];
        assert_eq!(to_string_pretty(&value), json.join("\n"));
    }

    #[test]
    fn a_lone_key_that_begins_with_a_dollar_is_escaped() {
        check(map([("$", 1)]), r#"{"$$":1}"#);
        check(map([("$x", 1)]), r#"{"$$x":1}"#);
        check(map([("$$x", 1)]), r#"{"$$$x":1}"#);
        check(map([("$bin", "AA==")]), r#"{"$$bin":"AA=="}"#);
        check(map([("x$", 1)]), r#"{"x$":1}"#);
        check(map([("$bin", 1), ("$$ext", 2)]), r#"{"$bin":1,"$$ext":2}"#);
        check_read(r#"{"\u0024bin":"AA=="}"#, &Value::Binary(vec![0]));
    }

    #[test]
    fn a_timestamp_is_a_time_only_if_its_bytes_survive() {
        check(Value::Ext(-1, vec![0; 4]), r#"{"$time":"1970-01-01T00:00:00Z"}"#);
        check(Value::Ext(-1, vec![0xff; 4]), r#"{"$time":"2106-02-07T06:28:15Z"}"#);
        check(timestamp_64(1 << 32, 0), r#"{"$time":"2106-02-07T06:28:16Z"}"#);
        check(timestamp_64(0, 1), r#"{"$time":"1970-01-01T00:00:00.000000001Z"}"#);
        check(timestamp_64((1 << 34) - 1, 999), r#"{"$time":"2514-05-30T01:53:03.000000999Z"}"#);
        check(timestamp_96(1 << 34, 0), r#"{"$time":"2514-05-30T01:53:04Z"}"#);
        check(timestamp_96(-1, 500_000_000), r#"{"$time":"1969-12-31T23:59:59.5Z"}"#);
        check(timestamp_96(-62_167_219_200, 0), r#"{"$time":"0000-01-01T00:00:00Z"}"#);
        check(Value::Ext(1, vec![0; 4]), r#"{"$ext":[1,"AAAAAA=="]}"#);

        let overlong = [timestamp_64(0, 0), timestamp_64(5, 1_000_000_000), timestamp_96(0, 1)];
        let beyond = [(-62_167_219_201, 0), (i64::MIN, 0), (i64::MAX, 0), (-1, u32::MAX)];
        let beyond = beyond.map(|(second, nanosecond)| timestamp_96(second, nanosecond));
        let odd = [0, 3, 5, 11, 13].map(|len| Value::Ext(-1, vec![0; len]));
        for value in overlong.into_iter().chain(beyond).chain(odd) {
            let json = to_string(&value);
            assert!(json.starts_with(r#"{"$ext":[-1,"#), "{json}");
            check_read(&json, &value);
        }
    }

    #[test]
    fn a_time_may_have_any_offset_and_letter_case() {
        for text in [
            "1970-01-01T00:30:00.123456789Z",
            "1970-01-01t00:30:00.123456789z",
            "1970-01-01T00:30:00.123456789-00:00",
            "1970-01-01T06:00:00.123456789+05:30",
            "1969-12-31T17:30:00.123456789-07:00",
        ] {
            check_read(&format!(r#"{{"$time":"{text}"}}"#), &timestamp_64(1_800, 123_456_789));
        }
    }

    #[test]
    fn what_does_not_survive_is_what_the_docs_say() {
        assert_eq!(to_string(&Value::F32(0.1)), "0.10000000149011612");
        assert_eq!(to_string(&Value::F32(f32::NAN)), r#"{"$float":"NaN"}"#);
        let text = rmpv::decode::read_value(&mut [0xd9, 2, b'a', 0xff].as_slice()).unwrap();
        assert_eq!(to_string(&text), r#"{"$bin":"Yf8="}"#);
        assert_eq!(to_string(&map([(text, 1)])), r#"{"$map":[[{"$bin":"Yf8="},1]]}"#);
    }

    #[test]
    fn integers_never_turn_into_floats() {
        check_error("18446744073709551616", 1, 1, "write a string, or a float");
        check_error("[1,\n \"é\", -9223372036854775809]", 2, 8, "integer outside");
        check_error(r#"{"a \\": "\\\"", "b": -0}"#, 1, 23, "write 0, or -0.0");
        check_read("18446744073709551616.0", &18446744073709551616.0.into());
        check_read("1e2", &100.0.into());
        check_read("1E+2", &100.0.into());
        check_read(r#""18446744073709551616 \" -0""#, &"18446744073709551616 \" -0".into());
    }

    #[test]
    fn errors_say_where_what_and_what_to_write() {
        check_error("", 1, 1, "EOF");
        check_error("1 2", 1, 3, "write one value only");
        check_error("[1,\n2,]", 2, 3, "trailing comma");
        check_error("1e400", 1, 5, r#"write a string, or infinity as {"$float": "Infinity"}"#);
        check_error("{1: 2}", 1, 2, r#"write the map as {"$map": [[key, value], ..]}"#);
        check_error(r#"{"a": 1, "a": 2}"#, 1, 12, r#"second key "a" in one object; write {"$map""#);
        check_error(r#""\ud800""#, 1, 8, "");
        check_error(r#"{"$": 1}"#, 1, 8, r#""$" is none of $bin, $ext, $float, $map and $time"#);
        check_error(r#"[{"$x": 1}]"#, 1, 10, r#"for a map with the key "$x" write "$$x""#);
        for (json, problem) in [
            (r#"{"$bin":1}"#, "needs a string of base64"),
            (r#"{"$bin":{"$bin":""}}"#, "needs a string of base64"),
            (r#"{"$bin":"AA"}"#, "needs standard base64 with padding"),
            (r#"{"$bin":"-_8="}"#, "needs standard base64 with padding"),
            (r#"{"$ext":5}"#, "needs [type, \"<base64>\"]"),
            (r#"{"$ext":[5]}"#, "needs [type, \"<base64>\"]"),
            (r#"{"$ext":[128,""]}"#, "needs a type from -128 to 127"),
            (r#"{"$ext":[1.0,""]}"#, "needs a type from -128 to 127"),
            (r#"{"$ext":[1,2]}"#, "needs a string of base64"),
            (r#"{"$float":"nan"}"#, "needs \"NaN\""),
            (r#"{"$float":1.5}"#, "needs \"NaN\""),
            (r#"{"$map":{}}"#, "needs an array of pairs"),
            (r#"{"$map":[1]}"#, "needs two values"),
            (r#"{"$map":[[1,2,3]]}"#, "needs two values"),
            (r#"{"$time":0}"#, "needs a string"),
            (r#"{"$time":"2026-01-31T23:59:59"}"#, "needs RFC 3339 with an offset"),
            (r#"{"$time":"2026-01-31 23:59:59Z"}"#, "needs RFC 3339 with an offset"),
            (r#"{"$time":"2026-01-31T23:59:59.Z"}"#, "needs RFC 3339 with an offset"),
            (r#"{"$time":"2026-01-31T23:59:59Z[UTC]"}"#, "needs RFC 3339 with an offset"),
            (r#"{"$time":"-000001-01-31T23:59:59Z"}"#, "needs RFC 3339 with an offset"),
            (r#"{"$time":"2016-12-31T23:59:60Z"}"#, "has a leap second"),
            (r#"{"$time":"2026-02-29T00:00:00Z"}"#, "is no such time"),
            (r#"{"$time":"2026-01-31T24:00:00Z"}"#, "is no such time"),
            (r#"{"$time":"2026-01-31T00:00:00.0123456789Z"}"#, "is no such time"),
            (r#"{"$time":"9999-12-31T23:59:59Z"}"#, "is no such time"),
        ] {
            check_error(json, 1, json.len(), problem);
            check_error(json, 1, json.len(), "; for a map with the key \"$");
        }
    }

    #[test]
    fn nesting_is_bounded_on_reading_and_roomy_on_writing() {
        let nested = |depth| "[".repeat(depth) + &"]".repeat(depth);
        assert!(from_str(&nested(127)).is_ok());
        check_error(&nested(128), 1, 128, "nest at most 127 arrays and objects");

        let wraps: [fn(Value) -> Value; 4] =
            [|v| array([v]), |v| map([("a", v)]), |v| map([(0, v)]), |v| map([(v, 0)])];
        let write = move || {
            for wrap in wraps {
                let value = (0..1024).fold(Value::Nil, |value, _| wrap(value));
                assert!(to_string(&value).len() < to_string_pretty(&value).len());
            }
        };
        thread::Builder::new().stack_size(2 << 20).spawn(write).unwrap().join().unwrap();
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let text = prop_oneof!["\\${0,3}(bin|ext|time|map|float|a)?", any::<String>()];
        let bytes = prop::collection::vec(any::<u8>(), 0..16);
        let leaf = prop_oneof![
            Just(Value::Nil),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            // A NaN loses its payload, so there is one of them here.
            prop::num::f64::ANY.prop_map(|f| if f.is_nan() { f64::NAN } else { f }.into()),
            text.clone().prop_map(Value::from),
            bytes.clone().prop_map(Value::from),
            (any::<i8>(), bytes).prop_map(|(kind, bytes)| Value::Ext(kind, bytes)),
            any::<[u8; 4]>().prop_map(|bytes| Value::Ext(-1, bytes.into())),
            (0..1_u64 << 34, 0..=1_000_000_000_u64).prop_map(|(s, n)| timestamp_64(s, n)),
            (-(1_i64 << 39)..1 << 39, 0..=1_000_000_000_u32).prop_map(|(s, n)| timestamp_96(s, n)),
        ];
        leaf.prop_recursive(5, 64, 6, move |inner| {
            let key = prop_oneof![8 => text.clone().prop_map(Value::from), 1 => inner.clone()];
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::Array),
                prop::collection::vec((key, inner), 0..4).prop_map(Value::Map),
            ]
        })
    }

    #[test]
    fn an_error_does_not_show_all_of_a_long_text() {
        let long = "\x7f".repeat(1 << 20);
        for text in [
            format!(r#"{{"${long}": 1}}"#),
            format!(r#"{{"{long}": 1, "{long}": 2}}"#),
            format!(r#"{{"$time": "{long}"}}"#),
            format!(r#"{{"$bin": "{long}"}}"#),
            format!(r#"{{"$float": "{long}"}}"#),
            format!(r#"{{"$ext": [1, "{long}"]}}"#),
        ] {
            let error = from_str(&text).expect_err("it is none").to_string();
            assert!(error.len() < 6000, "{} bytes", error.len());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 512,
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn every_value_survives_the_way_through_json(value in any_value()) {
            check_read(&to_string(&value), &value);
            check_read(&to_string_pretty(&value), &value);
        }

        #[test]
        fn whatever_is_read_survives_the_way_back(
            value in any_value(),
            at in any::<prop::sample::Index>(),
            typo in r#"[-$"\\\[\]{}:,.0-9eE a]{0,2}"#,
        ) {
            let mut json: Vec<char> = to_string(&value).chars().collect();
            let at = at.index(json.len());
            json.splice(at..=at, typo.chars());
            if let Ok(value) = from_str(&String::from_iter(json)) {
                check_read(&to_string(&value), &value);
            }
        }
    }
}
