//! A value survives the way through JSON, and what is read from any text is written and read back
//! as the same.

use rmpv::Value;

use crate::json::{from_str, to_string, to_string_pretty};
use crate::wire::agreement::same;
use crate::wire::{FrameFinder, Limits, decode};

/// Deep enough for what reading refuses, and little enough for the indent of each line.
const LIMITS: Limits = Limits { max_bytes: usize::MAX, max_depth: 200, max_items: usize::MAX };

/// What reading takes.
const MAX_NESTING: usize = 127;

/// The input is a text, and a MessagePack message.
pub fn json(data: &[u8]) {
    if let Ok(text) = str::from_utf8(data)
        && let Ok(value) = from_str(text)
    {
        check(&value);
    }
    if let Ok(Some(end)) = FrameFinder::new().find(data, &LIMITS)
        && let Ok(mut value) = decode(&data[..end])
    {
        simplify(&mut value);
        check(&value);
    }
}

/// The value is read back as it was, if it does not nest too deep.
fn check(value: &Value) {
    for text in [to_string(value), to_string_pretty(value)] {
        let read = from_str(&text);
        if nesting(&text) > MAX_NESTING {
            assert!(read.is_err(), "deeper than the documentation says");
            continue;
        }
        assert!(matches!(&read, Ok(read) if same(read, value)), "{text} read as {read:?}");
        let parsed = serde_json::from_str::<serde_json::Value>(&text);
        assert!(parsed.is_ok(), "{text} is no JSON: {parsed:?}");
    }
}

/// Does to a value what is documented not to survive.
fn simplify(value: &mut Value) {
    match value {
        Value::F32(float) => *value = f64::from(*float).into(),
        Value::Array(items) => items.iter_mut().for_each(simplify),
        Value::Map(entries) => entries.iter_mut().for_each(|(key, value)| {
            simplify(key);
            simplify(value);
        }),
        _ => {}
    }
    if let Value::F64(float) = value
        && float.is_nan()
    {
        *float = f64::NAN;
    }
}

/// The arrays and objects inside each other.
fn nesting(json: &str) -> usize {
    let (mut depth, mut deepest, mut in_text) = (0, 0, false);
    let mut bytes = json.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => in_text = !in_text,
            b'\\' => drop(bytes.next()),
            b'[' | b'{' if !in_text => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !in_text => depth -= 1,
            _ => {}
        }
    }
    deepest
}
