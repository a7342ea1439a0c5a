//! What a router adds to a message: from its bytes to those of its reply, beside a bare closure
//! that takes the same message apart by hand. Run with `cargo bench --bench router`.

use std::hint::black_box;

use arrpc::internals::{Answering, encode};
use arrpc::{Router, Value, value};
use criterion::{Criterion, criterion_group, criterion_main};

arrpc::service! {
    trait Math, client MathClient, name "math_service" {
        fn plus(&self, a: i64, b: i64) -> i64;
    }
}

struct MathService;

impl Math for MathService {
    fn plus(&self, a: i64, b: i64) -> i64 {
        a + b
    }
}

/// The sum of the first two numbers, without a look at the method.
fn plus(message: Value) -> Option<i64> {
    let entries = message.as_map()?;
    let (_, params) = entries.iter().find(|(key, _)| key.as_str() == Some("params"))?;
    let [a, b] = params.as_array()?.as_slice() else { return None };
    Some(a.as_i64()? + b.as_i64()?)
}

/// A router with a hundred other methods.
fn router() -> Router {
    let others = (0..100).fold(Router::new(), |router, number| {
        router.method(&format!("method_{number}"), ["a"], |a: i64| a)
    });
    others.merge(MathService.into_router()).id(7, "math_service.plus")
}

fn calls(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("plus");
    let mut measure = |name: &str, answering: Answering, message: Value| {
        let (mut packed, mut out) = (Vec::new(), Vec::new());
        encode(&message, &mut packed).expect("less than 4 GiB");
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                out.clear();
                answering.answer(black_box(&packed), &mut out).expect("a sum");
                assert_eq!(black_box(&out), &[30]);
            });
        });
    };
    let by_name = || value!({"method": "math_service.plus", "params": [10, 20]});
    measure("bare closure", Answering::closure(plus), by_name());
    let closure = Router::new().method("plus", ["a", "b"], |a: i64, b: i64| a + b);
    let closure = Router::new().service("math_service", closure);
    measure("router", Answering::new(closure), by_name());
    measure("router, typed service", Answering::new(router()), by_name());
    let by_number = value!({"method": 7, "params": [10, 20]});
    measure("router, by number", Answering::new(router()), by_number);
    let named = value!({"method": "math_service.plus", "params": {"a": 10, "b": 20}});
    measure("router, named parameters", Answering::new(router()), named);
    group.finish();
}

criterion_group!(benches, calls);
criterion_main!(benches);
