//! Values as a source for serde types, without a copy: texts and bins move into what is made of
//! them. Takes the same forms as `rmp-serde` does from bytes. Knows what was expected and what
//! came, and says it in words for people.

use std::fmt;

use rmpv::Value;
use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{self, Deserializer, IntoDeserializer, Unexpected, Visitor};
use serde::forward_to_deserialize_any;

/// The bytes of a text from a peer that an error shows.
const SHOWN_BYTES: usize = 40;

/// The bytes of a text that a type's `Deserialize` gives, which may quote what the peer has sent.
const MAX_TEXT_BYTES: usize = 400;

/// A value that something is made of.
pub(crate) struct Source(pub(crate) Value);

/// Why nothing could be made of a value.
#[derive(Debug)]
pub(crate) struct Mismatch(String);

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Mismatch {}

impl de::Error for Mismatch {
    #[cold]
    fn custom<T: fmt::Display>(message: T) -> Self {
        let mut message = message.to_string();
        if message.len() > MAX_TEXT_BYTES {
            message.truncate(message.floor_char_boundary(MAX_TEXT_BYTES));
            message.push_str("..");
        }
        // Names of variants and fields come from the peer as they are.
        let is_unseen = |character: char| character.is_control() || is_direction(character);
        if message.contains(is_unseen) {
            let escaped = |character: char| match is_unseen(character) {
                true => character.escape_unicode().to_string(),
                false => character.to_string(),
            };
            message = message.chars().map(escaped).collect();
        }
        Self(message)
    }

    #[cold]
    fn invalid_type(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        let expected = match expected.to_string().as_str() {
            "a sequence" => "an array".to_owned(),
            expected => expected.to_owned(),
        };
        Self(format!("expected {expected}, got {}", Found(found)))
    }

    #[cold]
    fn invalid_value(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::invalid_type(found, expected)
    }
}

/// Whether a character turns the direction of the text behind it.
fn is_direction(character: char) -> bool {
    matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// What came, in the words of the MessagePack specification.
struct Found<'a>(Unexpected<'a>);

impl fmt::Display for Found<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Unexpected::Bool(value) => write!(f, "the bool {value}"),
            Unexpected::Unsigned(number) => write!(f, "the int {number}"),
            Unexpected::Signed(number) => write!(f, "the int {number}"),
            Unexpected::Float(number) => write!(f, "the float {number:?}"),
            Unexpected::Str(text) => write!(f, "the str {}", Quoted(text)),
            Unexpected::Bytes(_) => f.write_str("a bin"),
            Unexpected::Unit | Unexpected::Option => f.write_str("nil"),
            Unexpected::Seq => f.write_str("an array"),
            Unexpected::Map => f.write_str("a map"),
            Unexpected::NewtypeStruct => f.write_str("an ext"),
            other => write!(f, "{other}"),
        }
    }
}

/// A text from a peer as errors quote it: with escapes, and not all of a long one.
pub(crate) struct Quoted<'a>(pub(crate) &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(text) = self;
        match text.len() {
            0..=SHOWN_BYTES => write!(f, "{text:?}"),
            _ => write!(f, "{:?}..", &text[..text.floor_char_boundary(SHOWN_BYTES)]),
        }
    }
}

impl<'de> Deserializer<'de> for Source {
    type Error = Mismatch;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match self.0 {
            Value::Nil => visitor.visit_unit(),
            Value::Boolean(value) => visitor.visit_bool(value),
            Value::Integer(number) => match (number.as_u64(), number.as_i64()) {
                (Some(number), _) => visitor.visit_u64(number),
                (None, number) => visitor.visit_i64(number.unwrap_or_default()), // below zero
            },
            Value::F32(number) => visitor.visit_f32(number),
            Value::F64(number) => visitor.visit_f64(number),
            Value::String(text) => match text.into_str() {
                Some(text) => visitor.visit_string(text),
                None => Err(de::Error::custom("a str is not UTF-8")),
            },
            Value::Binary(bytes) => visitor.visit_byte_buf(bytes),
            Value::Array(items) => {
                let mut items = SeqDeserializer::new(items.into_iter().map(Source));
                let made = visitor.visit_seq(&mut items)?;
                items.end().map(|()| made)
            }
            Value::Map(entries) => {
                let entries = entries.into_iter().map(|(key, value)| (Source(key), Source(value)));
                let mut entries = MapDeserializer::new(entries);
                let made = visitor.visit_map(&mut entries)?;
                entries.end().map(|()| made)
            }
            Value::Ext(kind, bytes) => {
                let parts = [Value::from(kind), Value::Binary(bytes)].map(Source);
                visitor.visit_newtype_struct(SeqDeserializer::new(parts.into_iter()))
            }
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match self.0 {
            Value::Nil => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        match self.0 {
            // The name by which rmp-serde's types ask for an ext.
            Value::Ext(..) if name == rmpv::MSGPACK_EXT_STRUCT_NAME => {
                self.deserialize_any(visitor)
            }
            _ => visitor.visit_newtype_struct(self),
        }
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        match self.0 {
            Value::Array(items) if items.is_empty() => visitor.visit_unit(), // rmp-serde's form
            value => Self(value).deserialize_any(visitor),
        }
    }

    /// A variant is its name, or a map of its name to what it holds.
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        match self.0 {
            Value::Map(mut entries) if entries.len() == 1 => {
                let (name, content) = entries.pop().unwrap_or((Value::Nil, Value::Nil));
                visitor.visit_enum(Variant { name, content })
            }
            Value::Map(_) => Err(de::Error::invalid_type(Unexpected::Map, &"a map of one variant")),
            name => visitor.visit_enum(Variant { name, content: Value::Nil }),
        }
    }

    fn deserialize_i128<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match wide(&self.0) {
            Some(bytes) => visitor.visit_i128(i128::from_be_bytes(bytes)),
            None => self.deserialize_any(visitor),
        }
    }

    fn deserialize_u128<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match wide(&self.0) {
            Some(bytes) => visitor.visit_u128(u128::from_be_bytes(bytes)),
            None => self.deserialize_any(visitor),
        }
    }

    /// As rmp-serde, which writes addresses and the like in their short forms.
    fn is_human_readable(&self) -> bool {
        false
    }

    /// A bin is also a sequence of its bytes, for the `Vec<u8>` that it was.
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match self.0 {
            Value::Binary(bytes) => visitor.visit_seq(SeqDeserializer::new(bytes.into_iter())),
            _ => self.deserialize_any(visitor),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf unit tuple
        tuple_struct map struct identifier ignored_any
    }
}

/// A number of 128 bits, which rmp-serde writes as a bin.
fn wide(value: &Value) -> Option<[u8; 16]> {
    match value {
        Value::Binary(bytes) => bytes.as_slice().try_into().ok(),
        _ => None,
    }
}

impl<'de> IntoDeserializer<'de, Mismatch> for Source {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

struct Variant {
    name: Value,
    content: Value,
}

impl<'de> de::EnumAccess<'de> for Variant {
    type Error = Mismatch;
    type Variant = Source;

    fn variant_seed<S: de::DeserializeSeed<'de>>(
        self,
        seed: S,
    ) -> Result<(S::Value, Source), Mismatch> {
        Ok((seed.deserialize(Source(self.name))?, Source(self.content)))
    }
}

impl<'de> de::VariantAccess<'de> for Source {
    type Error = Mismatch;

    fn unit_variant(self) -> Result<(), Mismatch> {
        de::Deserialize::deserialize(self)
    }

    fn newtype_variant_seed<S: de::DeserializeSeed<'de>>(
        self,
        seed: S,
    ) -> Result<S::Value, Mismatch> {
        seed.deserialize(self)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _len: usize, visitor: V) -> Result<V::Value, Mismatch> {
        self.deserialize_any(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        self.deserialize_any(visitor)
    }
}

/// What is made of a value that is not there: an `Option` is `None`, everything else a mismatch.
pub(crate) struct Missing;

impl<'de> Deserializer<'de> for Missing {
    type Error = Mismatch;

    fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Mismatch> {
        Err(de::Error::custom("missing"))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        visitor.visit_none()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::IpAddr;
    use std::time::Duration;

    use serde::de::DeserializeOwned;
    use serde::{Deserialize, Serialize};

    use super::*;
    use crate::{to_value, value};

    #[derive(Debug, Serialize, Deserialize, PartialEq)]
    struct Unit;
    #[derive(Debug, Serialize, Deserialize, PartialEq)]
    struct Meters(f64);
    #[derive(Debug, Serialize, Deserialize, PartialEq)]
    struct Pair(u8, String);
    #[derive(Debug, Serialize, Deserialize, PartialEq)]
    struct Point {
        x: i64,
        y: Option<i64>,
    }
    #[derive(Debug, Serialize, Deserialize, PartialEq)]
    enum Shape {
        Empty,
        Circle(f64),
        Line(Point, Point),
        Square { side: u32 },
    }

    fn read<T: DeserializeOwned>(value: Value) -> Result<T, String> {
        T::deserialize(Source(value)).map_err(|mismatch| mismatch.to_string())
    }

    #[track_caller]
    fn comes_back<T: Serialize + DeserializeOwned + PartialEq + fmt::Debug>(sent: T) {
        let value = to_value(&sent).expect("it can be serialized");
        assert_eq!(read::<T>(value.clone()).as_ref(), Ok(&sent), "{value}");
        assert_eq!(crate::from_value::<T>(&value).expect("as from bytes"), sent, "{value}");
    }

    #[test]
    fn every_type_comes_back_as_it_does_from_bytes() {
        comes_back((true, 'x', "text".to_owned(), ()));
        comes_back((u64::MAX, i64::MIN, i8::MIN, u128::MAX, i128::MIN));
        comes_back((1.5f32, f64::MAX, Some(3), None::<u8>, Some("x".to_owned())));
        comes_back((Unit, Meters(1.5), Pair(1, "one".into()), Point { x: -1, y: Some(2) }));
        comes_back([Shape::Empty, Shape::Circle(0.5), Shape::Square { side: 3 }]);
        comes_back(Shape::Line(Point { x: 0, y: None }, Point { x: 1, y: None }));
        comes_back(BTreeMap::from([(1, vec![Some(1), None]), (2, vec![])]));
        comes_back((
            Duration::from_millis(1500),
            "127.0.0.1".parse::<IpAddr>().expect("it is one"),
        ));
        comes_back(value!({"a": [1, nil, 2.5], 5: vec![1u8, 2]}));
        comes_back(Value::Ext(7, vec![1, 2, 3]));
        comes_back(Point { x: 1, y: None });
    }

    #[test]
    fn a_struct_may_come_as_an_array_and_a_float_as_an_int() {
        assert_eq!(read(value!([1, 2])), Ok(Point { x: 1, y: Some(2) }));
        assert_eq!(read(value!({"x": 1})), Ok(Point { x: 1, y: None }));
        assert_eq!(read(value!(3)), Ok(3.0));
        assert_eq!(read(value!(vec![1u8, 2])), Ok(vec![1u8, 2]), "a bin");
        assert_eq!(read(value!([1, 2])), Ok(vec![1u8, 2]));
    }

    #[test]
    fn a_mismatch_says_what_was_expected_and_what_came() {
        #[track_caller]
        fn check<T: DeserializeOwned + fmt::Debug>(value: Value, expected: &str) {
            assert_eq!(read::<T>(value).expect_err("a mismatch"), expected);
        }
        check::<i64>(value!("twenty"), r#"expected i64, got the str "twenty""#);
        check::<i64>(value!(1.5), "expected i64, got the float 1.5");
        check::<u8>(value!(300), "expected u8, got the int 300");
        check::<u8>(value!(-1), "expected u8, got the int -1");
        check::<String>(value!(nil), "expected a string, got nil");
        check::<String>(value!([]), "expected a string, got an array");
        check::<bool>(value!({}), "expected a boolean, got a map");
        check::<f64>(value!(vec![1u8]), "expected f64, got a bin");
        check::<Vec<u8>>(value!(1), "expected an array, got the int 1");
        check::<Point>(value!(7), "expected struct Point, got the int 7");
        check::<Point>(value!({"y": 7}), "missing field `x`");
        check::<(u8, u8)>(value!([1]), "invalid length 1, expected a tuple of size 2");
        check::<(u8, u8)>(value!([1, 2, 3]), "invalid length 3, expected 2 elements in sequence");
        check::<Shape>(
            value!("Oval"),
            "unknown variant `Oval`, expected one of `Empty`, `Circle`, `Line`, `Square`",
        );
        check::<Shape>(
            value!({"Circle": 1, "Empty": nil}),
            "expected a map of one variant, got a map",
        );
        let long = "é".repeat(100);
        check::<u8>(
            value!(long.as_str()),
            &format!("expected u8, got the str \"{}\"..", "é".repeat(20)),
        );
        check::<u8>(Value::Ext(1, vec![]), "expected u8, got an ext");
        check::<Shape>(
            value!("\x1b[2J\r\u{202e}X"),
            "unknown variant `\\u{1b}[2J\\u{d}\\u{202e}X`, \
             expected one of `Empty`, `Circle`, `Line`, `Square`",
        );
        let error = read::<Shape>(value!("x".repeat(1 << 20))).expect_err("no variant");
        assert_eq!(error.len(), MAX_TEXT_BYTES + 2);
    }

    #[test]
    fn only_an_option_may_be_missing() {
        assert_eq!(Option::<u8>::deserialize(Missing).expect("an Option"), None);
        for missing in [u8::deserialize(Missing).is_err(), <()>::deserialize(Missing).is_err()] {
            assert!(missing);
        }
        assert!(Value::deserialize(Missing).is_err());
    }
}
