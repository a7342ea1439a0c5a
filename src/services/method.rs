//! Functions with typed parameters, as the methods of a router: closures and functions of any
//! number of parameters up to eight, sync and async, with or without the context of the call.

use std::any::type_name;
use std::fmt;
use std::sync::{Arc, OnceLock};

use serde::de::DeserializeOwned;

use super::call::take_params;
use super::params::{Params, invalid_params};
use crate::metrics::MethodSeries;
use crate::server::response::Response;
use crate::{Context, Handler, Reply, RpcError, Value, name};

/// A function that a router can call: its parameters are any types that implement
/// [`serde::Deserialize`], and it returns what a handler may, or a future of it. The first
/// parameter may be the [`Context`] of the call.
///
/// `N` is the number of parameters beside the context, `Args` and `M` mark what the function takes
/// and returns. All are inferred.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a method with the names of {N} parameters",
    note = "it takes eight parameters at most, as many as there are names, each with its type \
            written down, which implements serde's `Deserialize` and borrows nothing (`String`, not \
            `&str`); before them it may take a `Context` (not `&Context`), without a name",
    note = "it returns a `Value`, a number, a string, `bool`, `Vec<u8>`, `()`, an `Option` of these, \
            `arrpc::Serde(..)` around any type that implements `Serialize`, a `Result` of any of \
            these with `RpcError`, `String` or `&str`, or a future that is `Send` of one"
)]
pub trait Method<Args, M, const N: usize>: Send + Sync + 'static {
    /// Takes the parameters of these names, and calls the function.
    ///
    /// # Errors
    ///
    /// If the parameters do not fit. Then the function was not called.
    #[doc(hidden)]
    fn call(
        &self,
        names: &[&'static str; N],
        params: Params,
        context: &Context,
    ) -> Result<Response, RpcError>;

    /// The types of the parameters, and of what is returned.
    #[doc(hidden)]
    fn types() -> ([String; N], String);
}

/// Marks a function that takes the context of the call before its parameters.
#[derive(Debug)]
pub struct WithContext<Args>(Args);

macro_rules! methods {
    ($count:literal: $($type:ident $name:ident),*) => {
        impl<F, R, M, $($type),*> Method<($($type,)*), M, $count> for F
        where
            F: Fn($($type),*) -> R + Send + Sync + 'static,
            R: Reply<M>,
            $($type: DeserializeOwned,)*
        {
            #[allow(unused_mut, reason = "a function may have no parameters")]
            fn call(
                &self,
                names: &[&'static str; $count],
                mut params: Params,
                _context: &Context,
            ) -> Result<Response, RpcError> {
                params.check(names)?;
                let [$($name),*] = names;
                $(let $name: $type = params.next($name)?;)*
                params.finish()?;
                Ok(self($($name),*).into_response_with(handler_error))
            }

            fn types() -> ([String; $count], String) {
                ([$(name::readable(type_name::<$type>())),*], returned(R::type_name()))
            }
        }

        impl<F, R, M, $($type),*> Method<WithContext<($($type,)*)>, M, $count> for F
        where
            F: Fn(Context, $($type),*) -> R + Send + Sync + 'static,
            R: Reply<M>,
            $($type: DeserializeOwned,)*
        {
            #[allow(unused_mut, reason = "a function may have no parameters")]
            fn call(
                &self,
                names: &[&'static str; $count],
                mut params: Params,
                context: &Context,
            ) -> Result<Response, RpcError> {
                params.check(names)?;
                let [$($name),*] = names;
                $(let $name: $type = params.next($name)?;)*
                params.finish()?;
                Ok(self(context.clone(), $($name),*).into_response_with(handler_error))
            }

            fn types() -> ([String; $count], String) {
                ([$(name::readable(type_name::<$type>())),*], returned(R::type_name()))
            }
        }
    };
}

methods!(0:);
methods!(1: A a);
methods!(2: A a, B b);
methods!(3: A a, B b, C c);
methods!(4: A a, B b, C c, D d);
methods!(5: A a, B b, C c, D d, E e);
methods!(6: A a, B b, C c, D d, E e, G g);
methods!(7: A a, B b, C c, D d, E e, G g, H h);
methods!(8: A a, B b, C c, D d, E e, G g, H h, I i);

/// Gives an error of a method a code, if it has none.
fn handler_error(error: RpcError) -> RpcError {
    error.or_code("handler_error")
}

/// What a caller gets of what a function returns: `i64` of `Result<i64, RpcError>`.
fn returned(type_name: &str) -> String {
    let mut name = name::readable(type_name);
    for wrapper in ["Result<", "Serde<"] {
        let Some(inner) = name.strip_prefix(wrapper) else { continue };
        let mut depth = 0;
        let end = inner.find(|character| {
            depth += match character {
                '<' | '(' | '[' => 1,
                '>' | ')' | ']' => -1,
                _ => 0,
            };
            depth < 0 || (depth == 0 && character == ',')
        });
        name = inner.get(..end.unwrap_or(inner.len())).unwrap_or(inner).to_owned();
    }
    name
}

/// What people and programs are told of a method.
#[derive(Debug)]
pub(crate) struct Description {
    /// The names and types of the parameters.
    pub(crate) params: Vec<(&'static str, String)>,
    pub(crate) result: String,
}

impl fmt::Display for Description {
    /// As `(a: i64, b: i64)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(")?;
        for (index, (name, kind)) in self.params.iter().enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            write!(f, "{comma}{name}: {kind}")?;
        }
        f.write_str(")")
    }
}

type Function = dyn Fn(Params, &Context) -> Result<Response, RpcError> + Send + Sync;

/// A method of any parameters, as a handler of its calls.
#[derive(Clone)]
pub(crate) struct AnyMethod {
    pub(crate) name: String,
    pub(crate) description: Arc<Description>,
    /// What it does, or nothing.
    pub(crate) doc: String,
    /// Only for callers who have an identity.
    pub(crate) is_private: bool,
    /// Also for clients who have not the exclusive access.
    pub(crate) is_shared: bool,
    /// Where its calls are counted; empty at a server without metrics.
    pub(crate) series: OnceLock<MethodSeries>,
    function: Arc<Function>,
}

impl AnyMethod {
    pub(crate) fn new<F, Args, M, const N: usize>(
        name: String,
        names: [&'static str; N],
        method: F,
    ) -> Self
    where
        F: Method<Args, M, N>,
    {
        let names = names.map(name::bare);
        let (types, result) = F::types();
        let params = names.into_iter().zip(types).collect();
        let function =
            move |params: Params, context: &Context| method.call(&names, params, context);
        let description = Arc::new(Description { params, result });
        let function = Arc::new(function);
        let (doc, is_private, is_shared) = (String::new(), false, false);
        let series = OnceLock::new();
        Self { name, description, doc, is_private, is_shared, series, function }
    }
}

impl Handler for AnyMethod {
    fn call(&self, message: Value, context: &Context) -> Response {
        let params = Params::new(take_params(message));
        let response = params.and_then(|params| (self.function)(params, context));
        response.unwrap_or_else(|error| {
            let (name, params, text) = (&self.name, &self.description, error.description());
            Response::error(invalid_params(format_args!("{name}{params}: {text}")))
        })
    }
}
