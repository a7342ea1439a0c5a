//! What the bytes of a message cost, without sockets or tasks: finding its end, decoding, encoding,
//! signing and verifying, encrypting and decrypting. Run with `cargo bench --bench bytes`;
//! `-- find` for some of them.
//!
//! The yardsticks are in the same run: rmpv for decoding and encoding, the bare HMAC for
//! signatures.

use std::hint::black_box;

use arrpc::internals::{Encrypter, Frames, Sealer, decode, encode};
use arrpc::{Value, value};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

const SECRET: &[u8] = b"a secret that nobody has guessed";

/// Small, middling and large: 9 bytes, some 600, some 64 KiB.
fn messages() -> Vec<(usize, Value, Vec<u8>)> {
    let record = |id: usize| {
        value!({
            "id": id,
            "name": format!("the record with the number {id}"),
            "scores": [0.5, 1, -40_000, nil, true],
            "parent": {"id": id / 2, "kind": "folder"},
        })
    };
    let records = |count: usize| Value::Array((0..count).map(record).collect());
    [value!({"foo": "bar"}), records(6), records(640)]
        .into_iter()
        .map(|value| {
            let packed = packed(&value);
            (packed.len(), value, packed)
        })
        .collect()
}

fn packed(value: &Value) -> Vec<u8> {
    let mut packed = Vec::new();
    encode(value, &mut packed).expect("less than 4 GiB");
    packed
}

fn bytes(criterion: &mut Criterion) {
    for (length, value, packed) in messages() {
        let sealer = Sealer::new(SECRET);
        let mut sealed = Vec::new();
        sealer.seal(&packed, &mut sealed);
        let mut out = Vec::with_capacity(2 * sealed.len());
        let mut group = |name: &str, work: &mut dyn FnMut(&mut Vec<u8>)| {
            let mut group = criterion.benchmark_group(name);
            group.throughput(Throughput::Bytes(length as u64));
            group.bench_function(BenchmarkId::from_parameter(length), |bencher| {
                bencher.iter(|| {
                    out.clear();
                    work(&mut out);
                });
            });
            group.finish();
        };

        let mut frames = Frames::new(usize::MAX);
        group("find", &mut |_| {
            black_box(frames.find(black_box(&packed)).expect("well-formed"));
        });
        group("decode", &mut |_| {
            black_box(decode(black_box(&packed)).expect("well-formed"));
        });
        group("decode with rmpv", &mut |_| {
            black_box(rmpv::decode::read_value(&mut black_box(&packed[..])).expect("well-formed"));
        });
        group("encode", &mut |out| encode(black_box(&value), out).expect("less than 4 GiB"));
        group("encode with rmpv", &mut |out| {
            rmpv::encode::write_value(out, black_box(&value)).expect("writing to a Vec");
        });
        group("sign", &mut |out| sealer.seal(black_box(&packed), out));
        group("verify", &mut |_| {
            black_box(sealer.open(black_box(&sealed)).expect("it was signed"));
        });
        let encrypter = Encrypter::new(SECRET);
        let mut encrypted = Vec::new();
        encrypter.seal(&packed, &mut encrypted).expect("less than 4 GiB");
        group("encrypt", &mut |out| {
            encrypter.seal(black_box(&packed), out).expect("less than 4 GiB");
        });
        group("copy and decrypt", &mut |out| {
            out.extend_from_slice(black_box(&encrypted));
            black_box(encrypter.open(out).expect("it was encrypted"));
        });
        let keyed = Hmac::<Sha256>::new_from_slice(SECRET).expect("any length");
        group("bare HMAC", &mut |_| {
            let mut hmac = keyed.clone();
            hmac.update(black_box(&packed));
            black_box(hmac.finalize());
        });
    }
}

criterion_group!(benches, bytes);
criterion_main!(benches);
