//! Builds a value of what serde_json finds in a text. What a key means that stands twice, or alone,
//! is left to the rules of who reads.

use std::collections::HashMap;
use std::fmt;

use rmpv::Value;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// How objects are read.
pub(super) trait Rules: Copy {
    /// Says why a key cannot stand in an object a second time, if it cannot; else its last value
    /// counts.
    fn second_key(self, key: &str) -> Result<(), String>;

    /// Makes what an object stands for that has one key.
    fn only_entry(self, key: Value, value: Value) -> Result<Value, String>;
}

/// Builds the value of a text.
///
/// # Errors
///
/// If it is not JSON, nests more than 127 arrays and objects, or the rules refuse it.
pub(super) fn build(text: &str, rules: impl Rules) -> Result<Value, serde_json::Error> {
    let mut json = serde_json::Deserializer::from_str(text);
    let value = Building(rules).deserialize(&mut json)?;
    json.end()?;
    Ok(value)
}

#[derive(Clone, Copy)]
struct Building<R>(R);

impl<'de, R: Rules> DeserializeSeed<'de> for Building<R> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, R: Rules> Visitor<'de> for Building<R> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Nil)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = array.next_element_seed(self)? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Value, A::Error> {
        let mut entries: Vec<(Value, Value)> = Vec::new();
        let mut places = HashMap::new();
        while let Some(key) = object.next_key::<String>()? {
            let place = places.get(&key).copied();
            if place.is_some() {
                // Here, not at the end, for the error to point at the second key.
                self.0.second_key(&key).map_err(Error::custom)?;
            }
            let value = object.next_value_seed(self)?;
            match place.and_then(|place: usize| entries.get_mut(place)) {
                Some((_, former)) => *former = value,
                None => {
                    places.insert(key.clone(), entries.len());
                    entries.push((key.into(), value));
                }
            }
        }
        // A `$` key means something only when it is alone, which shows once its value is read.
        match <[_; 1]>::try_from(entries) {
            Ok([(key, value)]) => self.0.only_entry(key, value).map_err(Error::custom),
            Err(entries) => Ok(Value::Map(entries)),
        }
    }
}
