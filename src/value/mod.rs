//! Values: literals of them, and the way from and to serde types.

pub(crate) mod deserializer;

use std::cell::Cell;
use std::fmt;

use rmp_serde::decode;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::name::short_name;
use crate::wire::{self, Limits, MAX_MAX_DEPTH, encode, frame};
use crate::{Error, Value};

/// Builds a [`Value`] from a literal: `nil`, `[..]`, `{key: value, ..}`, or any expression that
/// [`Value`] is made from (`bool`, numbers, strings, `Vec<u8>` and `&[u8]` for bin, a `Value`).
///
/// A key is a literal, a name, or an expression in parentheses; it may have any type.
///
/// ```
/// use arrpc::{Value, value};
///
/// let id = 7;
/// let message = value!({
///     "id": id,
///     "tags": ["a", nil, 1.5, {"deep": true}],
///     "raw": vec![1u8, 2, 3],
///     (id + 1): -1,
/// });
/// assert_eq!(message["tags"][0], Value::from("a"));
/// assert_eq!(message["tags"][3]["deep"], Value::from(true));
/// assert_eq!(value!([]), Value::Array(vec![]));
/// assert_eq!(value!(nil), Value::Nil);
/// ```
#[macro_export]
macro_rules! value {
    (nil) => { $crate::Value::Nil };
    ([ $($items:tt)* ]) => { $crate::value!(@items [] $($items)*) };
    ({ $($entries:tt)* }) => { $crate::value!(@entries [] $($entries)*) };

    // What is done stands in brackets, so that the vector is made in its size; each in a block, so
    // that what it borrows and locks is given back before the next one.
    (@items [$($done:tt)*]) => { $crate::Value::Array(::std::vec![$($done)*]) };
    (@items [$($done:tt)*] nil $(, $($rest:tt)*)?) => {
        $crate::value!(@items [$($done)* $crate::Value::Nil,] $($($rest)*)?)
    };
    (@items [$($done:tt)*] [ $($inner:tt)* ] $(, $($rest:tt)*)?) => {
        $crate::value!(@items [$($done)* $crate::value!([ $($inner)* ]),] $($($rest)*)?)
    };
    (@items [$($done:tt)*] { $($inner:tt)* } $(, $($rest:tt)*)?) => {
        $crate::value!(@items [$($done)* $crate::value!({ $($inner)* }),] $($($rest)*)?)
    };
    (@items [$($done:tt)*] $item:expr $(, $($rest:tt)*)?) => {
        $crate::value!(
            @items [$($done)* { let item = $crate::Value::from($item); item },] $($($rest)*)?
        )
    };

    (@entries [$($done:tt)*]) => { $crate::Value::Map(::std::vec![$($done)*]) };
    (@entries [$($done:tt)*] $key:tt : nil $(, $($rest:tt)*)?) => {
        $crate::value!(
            @entries
            [$($done)* { let entry = ($crate::Value::from($key), $crate::Value::Nil); entry },]
            $($($rest)*)?
        )
    };
    (@entries [$($done:tt)*] $key:tt : [ $($inner:tt)* ] $(, $($rest:tt)*)?) => {
        $crate::value!(
            @entries
            [$($done)* {
                let entry = ($crate::Value::from($key), $crate::value!([ $($inner)* ]));
                entry
            },]
            $($($rest)*)?
        )
    };
    (@entries [$($done:tt)*] $key:tt : { $($inner:tt)* } $(, $($rest:tt)*)?) => {
        $crate::value!(
            @entries
            [$($done)* {
                let entry = ($crate::Value::from($key), $crate::value!({ $($inner)* }));
                entry
            },]
            $($($rest)*)?
        )
    };
    (@entries [$($done:tt)*] $key:tt : $value:expr $(, $($rest:tt)*)?) => {
        $crate::value!(
            @entries
            [$($done)* {
                let entry = ($crate::Value::from($key), $crate::Value::from($value));
                entry
            },]
            $($($rest)*)?
        )
    };

    ($value:expr) => { $crate::Value::from($value) };
}

/// A reply of any type that implements [`Serialize`], for a handler to return.
///
/// Structs become maps with their fields' names as keys, `Option` a nil or the value, and bytes
/// (of the `serde_bytes` crate) a bin.
///
/// ```
/// use arrpc::{Serde, Server};
///
/// #[derive(serde::Serialize)]
/// struct Point {
///     x: i32,
///     y: i32,
/// }
///
/// let server = Server::new("127.0.0.1", 0, |_| Serde(Point { x: 1, y: 2 }));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Serde<T>(pub T);

/// Makes a [`Value`] of any type that implements [`Serialize`]; the opposite of [`from_value`].
///
/// # Errors
///
/// [`Error::Protocol`] if the type's `Serialize` fails, or a map or sequence does not tell its
/// length beforehand.
pub fn to_value<T: Serialize + ?Sized>(value: &T) -> Result<Value, Error> {
    let error = |error: &dyn fmt::Display| {
        Error::Protocol(format!("cannot serialize {}: {error}", short_name::<T>()))
    };
    let mut message = SCRATCH.take();
    message.clear();
    rmp_serde::encode::write_named(&mut message, value).map_err(|cause| error(&cause))?;
    // A `Serialize` may announce more or less than it gives.
    let limits = Limits { max_bytes: usize::MAX, max_depth: MAX_MAX_DEPTH, max_items: usize::MAX };
    frame::check_whole(&message, &limits).map_err(|cause| error(&cause))?;
    let made = wire::decode(&message).map_err(|cause| error(&cause));
    if message.capacity() <= MAX_SCRATCH_BYTES {
        SCRATCH.set(message);
    }
    made
}

/// The most that a thread keeps for the next value.
const MAX_SCRATCH_BYTES: usize = 64 * 1024;

thread_local! {
    /// Where [`to_value`] packs what it makes a value of: small results cost no allocation but
    /// their own. Taken while in use, as a `Serialize` may call `to_value` itself.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Makes any type that implements [`serde::Deserialize`] of a [`Value`]; the opposite of
/// [`to_value`].
///
/// # Errors
///
/// [`Error::Protocol`] if the value does not have the type's form. The text says what was expected.
///
/// ```
/// use arrpc::{from_value, value};
///
/// #[derive(serde::Deserialize)]
/// struct Point {
///     x: i32,
///     y: i32,
/// }
///
/// let point: Point = from_value(&value!({"x": 1, "y": 2}))?;
/// assert_eq!(point.x + point.y, 3);
/// assert!(from_value::<Point>(&value!({"x": 1})).is_err());
/// # Ok::<(), arrpc::Error>(())
/// ```
pub fn from_value<T: DeserializeOwned>(value: &Value) -> Result<T, Error> {
    let mut message = Vec::new();
    encode::message(value, &mut message).map_err(|cause| other_form::<T>(&cause))?;
    from_message(&message)
}

/// Makes a type of a packed message, which it may borrow from.
pub(crate) fn from_message<'a, T: Deserialize<'a>>(message: &'a [u8]) -> Result<T, Error> {
    let error = |cause: &dyn fmt::Display| other_form::<T>(cause);
    rmp_serde::from_slice(message).map_err(|cause| match cause {
        decode::Error::TypeMismatch(marker) => {
            error(&format_args!("{} where it has something else", kind_of(marker.to_u8())))
        }
        cause => error(&cause),
    })
}

fn other_form<T>(cause: &dyn fmt::Display) -> Error {
    Error::Protocol(format!("not a {}: {cause}", short_name::<T>()))
}

/// What a value is, by its first byte, in the words of the MessagePack specification.
fn kind_of(marker: u8) -> &'static str {
    match marker {
        0x80..=0x8f | 0xde | 0xdf => "a map",
        0x90..=0x9f | 0xdc | 0xdd => "an array",
        0xa0..=0xbf | 0xd9..=0xdb => "a str",
        0xc0 => "nil",
        0xc2 | 0xc3 => "a bool",
        0xc4..=0xc6 => "a bin",
        0xc7..=0xc9 | 0xd4..=0xd8 => "an ext",
        0xca | 0xcb => "a float",
        _ => "an int",
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::future::ready;
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn a_literal_lets_go_of_what_it_borrows_with_each_of_its_values() {
        let shared = RefCell::new(7);
        let next = || shared.borrow_mut();
        let value = value!({
            "a": *next(), "b": [*next(), [*next()], {"c": *next()}], (*next()): nil, "d": [*next()],
        });
        assert_eq!(value.as_map().map(Vec::len), Some(4));
        // Or it could not be sent from a task of several threads.
        fn sendable(_: impl Send) {}
        let locked = Mutex::new(7);
        sendable(async { ready(value!([*locked.lock().expect("no panic")])).await });
    }

    #[test]
    fn a_value_of_another_form_is_refused_with_what_was_found() {
        #[derive(Debug, serde::Deserialize)]
        struct Point {
            #[allow(dead_code)]
            x: f64,
        }
        for (value, expected) in [
            (value!({"x": "one"}), "not a Point: a str where it has something else"),
            (value!({"y": 1}), "not a Point: missing field `x`"),
            (value!(5), "not a Point: invalid type: integer `5`, expected struct Point"),
        ] {
            let error = from_value::<Point>(&value).expect_err("another form");
            assert_eq!(error.to_string(), expected);
        }
        let error = from_value::<(u8, u8)>(&value!([1])).expect_err("another form");
        assert_eq!(
            error.to_string(),
            "not a (u8, u8): invalid length 1, expected a tuple of size 2"
        );
    }
}
