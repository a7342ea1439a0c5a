//! From a value to JSON text. By hand, for it cannot fail, and for the stack: 1024 nested `$map`
//! take 1.5 MiB in a debug build, where a `Serialize` took 4 and a thread often has only 2.

use std::borrow::Cow;
use std::collections::HashSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rmpv::Value;

use super::{TIMESTAMP, time};

pub(super) fn write(value: &Value, pretty: bool) -> String {
    let mut writer = Writer { text: String::new(), pretty, depth: 0 };
    writer.value(value);
    writer.text
}

struct Writer {
    text: String,
    pretty: bool,
    /// How many brackets are open, and so the indent of the next line.
    depth: usize,
}

impl Writer {
    fn value(&mut self, value: &Value) {
        match value {
            Value::Nil => self.text.push_str("null"),
            Value::Boolean(value) => self.text.push_str(if *value { "true" } else { "false" }),
            Value::Integer(value) => self.text.push_str(&value.to_string()),
            Value::F32(value) => self.float((*value).into()),
            Value::F64(value) => self.float(*value),
            Value::String(text) => match text.as_str() {
                Some(text) => self.string(text),
                None => self.binary(text.as_bytes()),
            },
            Value::Binary(bytes) => self.binary(bytes),
            Value::Array(items) => self.list(['[', ']'], items, Self::value),
            Value::Map(entries) => self.map(entries),
            Value::Ext(kind, bytes) => self.ext(*kind, bytes),
        }
    }

    fn float(&mut self, value: f64) {
        match value {
            f64::INFINITY => self.tagged("$float", r#""Infinity""#),
            f64::NEG_INFINITY => self.tagged("$float", r#""-Infinity""#),
            _ if value.is_nan() => self.tagged("$float", r#""NaN""#),
            // Unlike `Display`, `Debug` always has a point or an exponent.
            _ => self.text.push_str(&format!("{value:?}")),
        }
    }

    fn binary(&mut self, bytes: &[u8]) {
        self.tagged("$bin", &format!("\"{}\"", STANDARD.encode(bytes)));
    }

    fn ext(&mut self, kind: i8, bytes: &[u8]) {
        if kind == TIMESTAMP
            && let Some(time) = time::to_text(bytes)
        {
            self.tagged("$time", &format!("\"{time}\""));
        } else {
            let (space, bytes) = (self.space(), STANDARD.encode(bytes));
            self.tagged("$ext", &format!("[{kind},{space}\"{bytes}\"]"));
        }
    }

    fn map(&mut self, entries: &[(Value, Value)]) {
        if let Some(keys) = object_keys(entries) {
            let entries = keys.iter().zip(entries);
            self.list(['{', '}'], entries, |writer, (key, (_, value))| {
                writer.key(key);
                writer.value(value);
            });
        } else {
            self.list(['{', '}'], ["$map"], |writer, key| {
                writer.key(key);
                writer.list(['[', ']'], entries, |writer, (key, value)| {
                    writer.list(['[', ']'], [key, value], Self::value);
                });
            });
        }
    }

    /// Writes one of the forms that stay on one line when pretty.
    fn tagged(&mut self, name: &str, json: &str) {
        self.text.push('{');
        self.key(name);
        self.text.push_str(json);
        self.text.push('}');
    }

    fn list<T>(
        &mut self,
        [open, close]: [char; 2],
        items: impl IntoIterator<Item = T>,
        write: impl Fn(&mut Self, T),
    ) {
        self.text.push(open);
        self.depth += 1;
        let mut empty = true;
        for item in items {
            if !empty {
                self.text.push(',');
            }
            empty = false;
            self.line();
            write(self, item);
        }
        self.depth -= 1;
        if !empty {
            self.line();
        }
        self.text.push(close);
    }

    fn line(&mut self) {
        if self.pretty {
            self.text.push('\n');
            self.text.extend(std::iter::repeat_n("  ", self.depth));
        }
    }

    fn space(&self) -> &'static str {
        if self.pretty { " " } else { "" }
    }

    fn key(&mut self, key: &str) {
        self.string(key);
        self.text.push(':');
        self.text.push_str(self.space());
    }

    fn string(&mut self, text: &str) {
        self.text.push('"');
        for part in text.split_inclusive(needs_escape) {
            let Some(special) = part.chars().next_back().filter(|&c| needs_escape(c)) else {
                self.text.push_str(part);
                continue;
            };
            self.text.push_str(part.strip_suffix(special).unwrap_or(part));
            match special {
                '\n' => self.text.push_str("\\n"),
                '\r' => self.text.push_str("\\r"),
                '\t' => self.text.push_str("\\t"),
                '"' | '\\' => self.text.extend(['\\', special]),
                _ => self.text.push_str(&format!("\\u{:04x}", u32::from(special))),
            }
        }
        self.text.push('"');
    }
}

fn needs_escape(c: char) -> bool {
    c < ' ' || c == '"' || c == '\\'
}

/// Returns the keys an object for these entries has, unless only `$map` can hold them.
fn object_keys(entries: &[(Value, Value)]) -> Option<Vec<Cow<'_, str>>> {
    if let [(key, _)] = entries
        && let Some(key) = key.as_str().filter(|key| key.starts_with('$'))
    {
        return Some(vec![format!("${key}").into()]);
    }
    let mut seen = HashSet::with_capacity(entries.len());
    entries
        .iter()
        .map(|(key, _)| key.as_str().filter(|key| seen.insert(*key)).map(Cow::from))
        .collect()
}
