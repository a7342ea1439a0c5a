//! The parameters of a call, by position or by name, and what is said when they do not fit. Knows
//! nothing of routers.

use std::fmt;
use std::vec;

use serde::de::DeserializeOwned;

use crate::value::deserializer::{Mismatch, Missing, Quoted, Source};
use crate::{RpcError, Value};

const REASON: &str = "The parameters do not fit the method";

/// The error for parameters that do not fit.
#[cold]
pub(crate) fn invalid_params(text: impl fmt::Display) -> RpcError {
    RpcError::with_code("invalid_params", text).with_reason(REASON)
}

/// The parameters of one call, taken one after the other in the order of the method's names.
pub struct Params {
    given: Given,
    /// How many were taken.
    taken: usize,
}

enum Given {
    Positions(vec::IntoIter<Value>),
    Names(Vec<(Value, Value)>),
}

impl Params {
    /// # Errors
    ///
    /// If it is neither an array nor a map, nor left out.
    pub(crate) fn new(params: Option<Value>) -> Result<Self, RpcError> {
        let given = match params {
            Some(Value::Array(items)) => Given::Positions(items.into_iter()),
            Some(Value::Map(entries)) => Given::Names(entries),
            None | Some(Value::Nil) => Given::Positions(Vec::new().into_iter()),
            Some(_) => {
                return Err(invalid_params("params must be an array, or a map of names to values"));
            }
        };
        Ok(Self { given, taken: 0 })
    }

    /// Refuses names that no parameter has: a slip, which would else be told as a missing one.
    pub(crate) fn check(&self, names: &[&str]) -> Result<(), RpcError> {
        let Given::Names(entries) = &self.given else { return Ok(()) };
        for (key, _) in entries {
            match key.as_str() {
                Some(name) if names.contains(&name) => {}
                Some(name) => {
                    let text = format!("there is no parameter {}", Quoted(name));
                    return Err(invalid_params(text));
                }
                None => return Err(invalid_params("the names of parameters must be strs")),
            }
        }
        Ok(())
    }

    /// Makes a `T` of the next parameter, which has this name.
    pub(crate) fn next<T: DeserializeOwned>(&mut self, name: &str) -> Result<T, RpcError> {
        let value = match &mut self.given {
            Given::Positions(items) => items.next(),
            Given::Names(entries) => {
                let found = entries.iter().position(|(key, _)| key.as_str() == Some(name));
                found.map(|index| entries.swap_remove(index).1)
            }
        };
        self.taken += 1;
        let is_given = value.is_some();
        let made = match value {
            Some(value) => T::deserialize(Source(value)),
            None => T::deserialize(Missing),
        };
        made.map_err(|mismatch: Mismatch| match is_given {
            true => invalid_params(format_args!("parameter {name}: {mismatch}")),
            false => invalid_params(format_args!("parameter {name} is missing")),
        })
    }

    /// Checks that all parameters were taken.
    pub(crate) fn finish(self) -> Result<(), RpcError> {
        match self.given {
            Given::Positions(items) if items.len() == 0 => Ok(()),
            Given::Names(entries) if entries.is_empty() => Ok(()),
            Given::Positions(items) => Err(invalid_params(format_args!(
                "{} parameters are too many, it takes {}",
                self.taken + items.len(),
                self.taken
            ))),
            Given::Names(entries) => {
                let name = entries.first().and_then(|(name, _)| name.as_str()).unwrap_or_default();
                let text = format!("parameter {} is given twice", Quoted(name));
                Err(invalid_params(text))
            }
        }
    }
}

impl fmt::Debug for Params {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Params").field("taken", &self.taken).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value;

    /// The parameters of a method `(a: i64, b: Option<String>)`.
    fn take(params: Option<Value>) -> Result<(i64, Option<String>), String> {
        let take = || {
            let mut params = Params::new(params)?;
            params.check(&["a", "b"])?;
            let taken = (params.next("a")?, params.next("b")?);
            params.finish().map(|()| taken)
        };
        take().map_err(|error: RpcError| error.message().to_owned())
    }

    #[test]
    fn parameters_come_by_position_or_by_name() {
        let both = Ok((1, Some("x".to_owned())));
        assert_eq!(take(Some(value!([1, "x"]))), both);
        assert_eq!(take(Some(value!({"a": 1, "b": "x"}))), both);
        assert_eq!(take(Some(value!({"b": "x", "a": 1}))), both);
        assert_eq!(take(Some(value!([1]))), Ok((1, None)));
        assert_eq!(take(Some(value!({"a": 1}))), Ok((1, None)));
        assert_eq!(take(Some(value!([1, nil]))), Ok((1, None)));
    }

    #[test]
    fn what_does_not_fit_is_refused_by_the_name_of_the_parameter() {
        for (params, expected) in [
            (None, "parameter a is missing"),
            (Some(value!([])), "parameter a is missing"),
            (Some(value!({"b": "x"})), "parameter a is missing"),
            (Some(value!(["1"])), r#"parameter a: expected i64, got the str "1""#),
            (Some(value!({"a": 1, "b": 2})), "parameter b: expected a string, got the int 2"),
            (Some(value!([1, "x", 3, 4])), "4 parameters are too many, it takes 2"),
            (Some(value!({"a": 1, "c": 2})), r#"there is no parameter "c""#),
            (Some(value!({"a": 1, "a": 2})), r#"parameter "a" is given twice"#),
            (Some(value!({"A": 1, "b": "x"})), r#"there is no parameter "A""#),
            (Some(value!({"a": 1, 5: 2})), "the names of parameters must be strs"),
            (Some(value!(5)), "params must be an array, or a map of names to values"),
        ] {
            assert_eq!(take(params), Err(format!("[invalid_params] {expected}")));
        }
    }
}
