//! The macro that declares a service once for its server and its clients.

use std::any::type_name;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Router;
use crate::name::bare;

/// Declares a service: a trait for the server's side to implement, and a client with the same
/// methods.
///
/// ```
/// use arrpc::{Client, RpcError, Server, blocking};
///
/// arrpc::service! {
///     /// Sums and quotients.
///     pub trait Math, client MathClient, name "math_service" {
///         /// Adds two numbers.
///         fn plus(&self, a: i64, b: i64) -> String;
///         /// Divides a number by another.
///         async fn divide(&self, a: f64, b: f64) -> Result<f64, RpcError>;
///     }
/// }
///
/// struct MathService {
///     greeting: String,
/// }
///
/// impl Math for MathService {
///     fn plus(&self, a: i64, b: i64) -> String {
///         format!("{}: {}", self.greeting, a + b)
///     }
///
///     async fn divide(&self, a: f64, b: f64) -> Result<f64, RpcError> {
///         match b {
///             0.0 => Err(RpcError::new("b must not be 0")),
///             _ => Ok(a / b),
///         }
///     }
/// }
///
/// let math = MathService { greeting: "hello!".into() };
/// let server = Server::with_handler("127.0.0.1", 0, math.into_router()).start_background()?;
/// let port = server.local_addr().port();
///
/// let math = MathClient::new(Client::new("127.0.0.1", port));
/// assert_eq!(smol::block_on(math.plus(10, 20))?, "hello!: 30");
///
/// let math = MathClient::new(blocking::Client::new("127.0.0.1", port));
/// assert_eq!(math.divide(1.0, 2.0)?, 0.5);
/// # Ok::<(), arrpc::Error>(())
/// ```
///
/// What it makes:
///
/// - The trait, with the methods as they are written; an `async fn` returns a future that is `Send`,
///   and is implemented as an `async fn`. Its `into_router` makes a [`Router`](crate::Router) of the
///   service, whose methods have the service's name before theirs: `math_service.plus`. Several
///   services make one router with [`Router::merge`](crate::Router::merge).
/// - The client: `MathClient<C>`, made of a [`Client`](crate::Client), then its methods are `async`,
///   or of a [`blocking::Client`](crate::blocking::Client). A method that returns `T` or
///   `Result<T, E>` gives a caller a `Result<T, arrpc::Error>`.
///
/// Parameters are of any types that implement serde's `Serialize` and `Deserialize`, results too;
/// an error is any type that an [`RpcError`](crate::RpcError) is made from. A method whose first
/// parameter is written `context: Context` gets the [`Context`](crate::Context) of the call, and
/// its callers do not give it. Comments show in `arrpc methods`; other attributes are not taken.
///
/// A method cannot be called `into_router`, which is the trait's, nor `new`, which is the client's.
/// A `Result` is recognised by that name alone: one by another name, such as `io::Result<T>`, is an
/// error when the server is started.
#[macro_export]
macro_rules! service {
    // The parts of a method, one after the other: comments, `async`, the context, what it returns.
    (@read $service:tt [$($read:tt)*] $(#[doc = $doc:literal])* async fn $($rest:tt)*) => {
        $crate::service! { @params $service [$($read)*] [$($doc)*] [later] $($rest)* }
    };
    (@read $service:tt [$($read:tt)*] $(#[doc = $doc:literal])* fn $($rest:tt)*) => {
        $crate::service! { @params $service [$($read)*] [$($doc)*] [now] $($rest)* }
    };
    (
        @params $service:tt [$($read:tt)*] $doc:tt $kind:tt
        $method:ident(&self, context: Context $(, $param:ident: $type:ty)* $(,)?) $($rest:tt)*
    ) => {
        $crate::service! {
            @returns $service [$($read)*] $doc $kind $method [context] [$($param: $type),*] $($rest)*
        }
    };
    (
        @params $service:tt [$($read:tt)*] $doc:tt $kind:tt
        $method:ident(&self $(, $param:ident: $type:ty)* $(,)?) $($rest:tt)*
    ) => {
        $crate::service! {
            @returns $service [$($read)*] $doc $kind $method [] [$($param: $type),*] $($rest)*
        }
    };
    (
        @returns $service:tt [$($read:tt)*] $doc:tt $kind:tt $method:ident $context:tt $params:tt
        -> Result<$ok:ty, $error:ty>; $($rest:tt)*
    ) => {
        $crate::service! {
            @read $service
            [$($read)* { $doc $kind $method $context $params [$ok] [$error] }] $($rest)*
        }
    };
    (
        @returns $service:tt [$($read:tt)*] $doc:tt $kind:tt $method:ident $context:tt $params:tt
        -> $ok:ty; $($rest:tt)*
    ) => {
        $crate::service! {
            @read $service [$($read)* { $doc $kind $method $context $params [$ok] [] }] $($rest)*
        }
    };
    (
        @returns $service:tt [$($read:tt)*] $doc:tt $kind:tt $method:ident $context:tt $params:tt
        ; $($rest:tt)*
    ) => {
        $crate::service! {
            @read $service [$($read)* { $doc $kind $method $context $params [()] [] }] $($rest)*
        }
    };

    // All methods are read.
    (
        @read { [$(#[$meta:meta])*] [$visibility:vis] $Service:ident $Client:ident $name:literal }
        [$({
            [$($doc:literal)*] $kind:tt $method:ident $context:tt
            [$($param:ident: $type:ty),*] [$ok:ty] $error:tt
        })*]
    ) => {
        $(#[$meta])*
        #[allow(dead_code, reason = "a program may have the client's side only")]
        $visibility trait $Service: ::core::marker::Send + ::core::marker::Sync + 'static {
            $($crate::service! {
                @declare [$($doc)*] $kind $method $context [$($param: $type),*] [$ok] $error
            })*

            /// Makes a router of the service, whose methods have its name before theirs.
            fn into_router(self) -> $crate::Router
            where
                Self: ::core::marker::Sized,
            {
                let service = ::std::sync::Arc::new(self);
                let router = $crate::Router::new();
                $(
                    $($crate::services_declare::parameter::<$type>();)*
                    let name = $crate::services_declare::method($name, ::core::stringify!($method));
                    let router = $crate::services_declare::result::<$ok>(router, &name);
                    let router = router.method(
                        &name,
                        [$(::core::stringify!($param)),*],
                        $crate::service!(
                            @register service $kind $method $context [$($param: $type),*] $error
                        ),
                    );
                    let router = router.describe(&name, $crate::services_declare::doc(&[$($doc),*]));
                )*
                router
            }
        }

        #[doc = ::core::concat!("Calls the methods of a server's [`", ::core::stringify!($Service), "`].")]
        ///
        /// `C` is the client that it calls them with, async or blocking.
        #[derive(Clone, Debug)]
        #[allow(dead_code, reason = "a program may have the server's side only")]
        $visibility struct $Client<C = $crate::Client>(C);

        #[allow(dead_code, reason = "a program may have the server's side only")]
        impl<C> $Client<C> {
            /// Makes a client of the service that calls its methods with `client`.
            $visibility fn new(client: C) -> Self {
                Self(client)
            }
        }

        #[allow(dead_code, reason = "a program may have the server's side only")]
        impl $Client<$crate::Client> {
            $(
                $(#[doc = $doc])*
                $visibility async fn $method(
                    &self
                    $(, $param: $type)*
                ) -> ::core::result::Result<$ok, $crate::Error> {
                    let method =
                        $crate::services_declare::method($name, ::core::stringify!($method));
                    self.0.call(method, ($($param,)*)).await
                }
            )*
        }

        #[allow(dead_code, reason = "a program may have the server's side only")]
        impl $Client<$crate::blocking::Client> {
            $(
                $(#[doc = $doc])*
                $visibility fn $method(
                    &self
                    $(, $param: $type)*
                ) -> ::core::result::Result<$ok, $crate::Error> {
                    let method =
                        $crate::services_declare::method($name, ::core::stringify!($method));
                    self.0.call(method, ($($param,)*))
                }
            )*
        }
    };

    // A method in the trait.
    (
        @declare [$($doc:literal)*] [now] $method:ident [$($context:ident)?]
        [$($param:ident: $type:ty),*] [$ok:ty] [$($error:ty)?]
    ) => {
        $(#[doc = $doc])*
        fn $method(
            &self
            $(, $context: $crate::Context)?
            $(, $param: $type)*
        ) -> $crate::service!(@output [$ok] [$($error)?]);
    };
    (
        @declare [$($doc:literal)*] [later] $method:ident [$($context:ident)?]
        [$($param:ident: $type:ty),*] [$ok:ty] [$($error:ty)?]
    ) => {
        $(#[doc = $doc])*
        fn $method(
            &self
            $(, $context: $crate::Context)?
            $(, $param: $type)*
        ) -> impl ::core::future::Future<
            Output = $crate::service!(@output [$ok] [$($error)?]),
        > + ::core::marker::Send;
    };
    (@output [$ok:ty] []) => { $ok };
    (@output [$ok:ty] [$error:ty]) => { ::core::result::Result<$ok, $error> };

    // A method as a closure for the router.
    (
        @register $service:ident [now] $method:ident [$($context:ident)?]
        [$($param:ident: $type:ty),*] $error:tt
    ) => {{
        let service = ::std::sync::Arc::clone(&$service);
        move |$($context: $crate::Context,)? $($param: $type),*| {
            let returned = Self::$method(&service $(, $context)? $(, $param)*);
            $crate::service!(@reply returned $error)
        }
    }};
    (
        @register $service:ident [later] $method:ident [$($context:ident)?]
        [$($param:ident: $type:ty),*] $error:tt
    ) => {{
        let service = ::std::sync::Arc::clone(&$service);
        move |$($context: $crate::Context,)? $($param: $type),*| {
            let service = ::std::sync::Arc::clone(&service);
            async move {
                let returned = Self::$method(&service $(, $context)? $(, $param)*).await;
                $crate::service!(@reply returned $error)
            }
        }
    }};
    (@reply $returned:ident []) => { $crate::Serde($returned) };
    (@reply $returned:ident [$error:ty]) => { $returned.map($crate::Serde) };

    (
        $(#[$meta:meta])*
        $visibility:vis trait $Service:ident, client $Client:ident, name $name:literal {
            $($methods:tt)*
        }
    ) => {
        $crate::service! {
            @read { [$(#[$meta])*] [$visibility] $Service $Client $name } [] $($methods)*
        }
    };
}

/// Lets the compiler point at a type in the declaration that cannot be a parameter.
pub fn parameter<T: Serialize + DeserializeOwned>() {}

/// Lets the compiler point at a type in the declaration that cannot be a result. A `Result` by
/// another name than that would travel as the value that serde makes of it, errors too.
pub fn result<T: Serialize + DeserializeOwned>(router: Router, method: &str) -> Router {
    match type_name::<T>().starts_with("core::result::Result<") {
        true => router.with_mistake(format!(
            "the method {method:?} returns a Result by another name: declare `-> Result<T, E>`"
        )),
        false => router,
    }
}

/// The full name of a method; `type` is written `r#type` where it is declared.
pub fn method(service: &str, method: &str) -> String {
    format!("{service}.{}", bare(method))
}

/// The text of a method's comments.
pub fn doc(lines: &[&str]) -> String {
    lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join("\n").trim().to_owned()
}
