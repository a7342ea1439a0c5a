//! The inputs that fuzzing starts from, by target and name. A finding becomes a file of its own
//! beside them, with the ending `.seed` too.

use crate::wire::cipher::Cipher;
use crate::wire::envelope::seal;
use crate::wire::sealed::seal_request_with;
use crate::wire::{Secret, encode};
use crate::{Value, value};

/// A map with a str: the smallest message that is somebody's.
const FOO_BAR: &[u8] = b"\x81\xa3foo\xa3bar";

pub(super) fn seeds() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let mut seeds = Vec::new();
    seeds.extend(messages().into_iter().map(|(name, seed)| ("agreement", name, seed)));
    seeds.extend(frames().into_iter().map(|(name, seed)| ("frame", name, seed)));
    seeds.extend(envelopes().into_iter().map(|(name, seed)| ("envelope", name, seed)));
    seeds.extend(texts_of_errors().into_iter().map(|(name, seed)| ("errors", name, seed)));
    seeds.extend(texts_of_json().into_iter().map(|(name, seed)| ("json", name, seed.into())));
    seeds.extend(values_for_json().into_iter().map(|(name, value)| ("json", name, packed(&value))));
    seeds.extend(sessions().into_iter().map(|(name, seed)| ("session", name, seed)));
    seeds
}

fn packed(value: &Value) -> Vec<u8> {
    let mut message = Vec::new();
    encode::message(value, &mut message).expect("a short message");
    message
}

type Seeds<T> = Vec<(&'static str, T)>;

fn messages() -> Seeds<Vec<u8>> {
    let joined = |parts: &[&[u8]]| parts.concat();
    let deep = |header: &[u8], depth: usize, rest: &[u8]| [&header.repeat(depth), rest].concat();
    vec![
        ("array-widths", joined(&[b"\x91\xc0", b"\xdc\0\x01\xc0", b"\xdd\0\0\0\x01\xc0"])),
        ("bin-widths", joined(&[b"\xc4\x01a", b"\xc5\0\x01a", b"\xc6\0\0\0\x01a"])),
        ("claims-array", b"\x92\x01\xdd\xff\xff\xff\xff\x01\x02".into()),
        ("claims-bin", b"\x92\x01\xc6\x80\0\0\0\x01\x02".into()),
        ("claims-ext", b"\x92\x01\xc9\xff\xff\xff\xff\x01\x02".into()),
        ("claims-map", b"\x92\x01\xdf\x7f\xff\xff\xff\x01\x02".into()),
        ("claims-str", b"\x92\x01\xdb\xff\xff\xff\xff\x01\x02".into()),
        ("cut-header", b"\x93\x01\xa2ab\xcd\x01".into()),
        ("cut-text", b"\x93\x01\xa2ab\xd9\x05abcd".into()),
        ("deep-arrays", deep(b"\x91", 1024, b"\x01")),
        ("deep-keys", deep(b"\x81", 40, &[b"\x91".repeat(3), vec![0; 41]].concat())),
        ("deep-maps", deep(b"\x81\x01", 200, b"\xc0")),
        ("empty-containers", b"\x93\x80\x90\xa0".into()),
        ("ext-widths", joined(&[b"\xd4\x01a", b"\xc7\0\xff", b"\xc8\0\x01\x80a", b"\xd5\x7fab"])),
        ("floats", joined(&[b"\xca\x7f\xc0\0\x01", b"\xcb\x80\0\0\0\0\0\0\0"])),
        ("foo-bar", FOO_BAR.into()),
        ("foo-bar-twice", [FOO_BAR, FOO_BAR].concat()),
        ("http", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        ("integers", packed(&value!([0, 127, 128, 65536, u64::MAX, -1, -32, -33, i64::MIN]))),
        (
            "integers-wide",
            joined(&[b"\xcc\x01", b"\xcf\0\0\0\0\0\0\0\x01", b"\xd3\0\0\0\0\0\0\0\x01"]),
        ),
        ("length-4096", packed(&value!([vec![0u8; 4092]]))),
        (
            "map-widths",
            joined(&[b"\x81\x01\xc0", b"\xde\0\x01\x01\xc0", b"\xdf\0\0\0\x01\x01\xc0"]),
        ),
        ("reserved", b"\x93\x01\xc1\xa2ab".into()),
        ("str-not-utf8", b"\x92\xa2\xc3\x28\xa2\xc3\xa9".into()),
        ("str-widths", joined(&[b"\xa1a", b"\xd9\x01a", b"\xda\0\x01a", b"\xdb\0\0\0\x01a"])),
        ("too-deep", deep(b"\x91", 1025, b"\x01")),
    ]
}

/// The messages above with limits and pieces in front.
fn frames() -> Seeds<Vec<u8>> {
    const NONE: u16 = u16::MAX;
    let frame = |max_bytes: u16, max_items: u16, max_depth: u8, sizes: [u8; 4], stream: &[u8]| {
        let [bytes, items] = [max_bytes, max_items].map(u16::to_be_bytes);
        [&bytes[..], &items, &[max_depth], &sizes, stream].concat()
    };
    let three = [FOO_BAR, b"\x93\x01\x92\x02\x03\xc0", b"\x2a"].concat();
    vec![
        ("bytes-exact", frame(9, NONE, 128, [1; 4], FOO_BAR)),
        ("bytes-one-less", frame(8, NONE, 128, [1; 4], FOO_BAR)),
        ("claims-array", frame(4096, NONE, 128, [3, 1, 1, 9], b"\x92\xdc\x10\x00\x01")),
        ("claims-bin", frame(4096, NONE, 128, [2; 4], b"\xc6\x00\x00\x10\x00")),
        ("claims-bin-that-fits", frame(4096, NONE, 128, [2; 4], b"\xc5\x0f\xfd\x00")),
        ("claims-without-limit", frame(NONE, NONE, 128, [1; 4], b"\xdf\xff\xff\xff\xff\x01")),
        ("cut", frame(NONE, NONE, 128, [2; 4], b"\x93\x01\xa2ab\xcd\x01")),
        ("depth-anew", frame(NONE, NONE, 2, [3; 4], b"\x91\x91\x01\x91\x91\x02\x91\x90")),
        ("depth-exact", frame(NONE, NONE, 4, [1; 4], b"\x91\x91\x91\x91\x00")),
        ("depth-one-less", frame(NONE, NONE, 3, [1; 4], b"\x91\x91\x91\x91\x00")),
        ("depth-zero", frame(NONE, NONE, 0, [1; 4], b"\x01\x90")),
        ("items-anew", frame(NONE, 4, 128, [1; 4], &b"\x92\x01\x02".repeat(3))),
        ("items-exact", frame(NONE, 5, 128, [4, 1, 1, 1], b"\x92\x01\x81\x02\x03")),
        ("items-one-less", frame(NONE, 4, 128, [4, 1, 1, 1], b"\x92\x01\x81\x02\x03")),
        ("reserved-behind-a-message", frame(NONE, NONE, 128, [10; 4], b"\x2a\x92\x01\xc1")),
        ("siblings", frame(NONE, NONE, 4, [2; 4], b"\x92\x91\x91\x90\x92\x91\x90\x91\x91\xc0")),
        ("str-not-utf8", frame(NONE, NONE, 128, [1; 4], b"\x92\xa2\xc3\x28\x01\x02")),
        ("three-in-bytes", frame(NONE, NONE, 128, [1; 4], &three)),
        ("three-in-pieces", frame(NONE, NONE, 128, [5, 1, 12, 3], &three)),
        ("three-whole", frame(NONE, NONE, 128, [255; 4], &three)),
    ]
}

fn envelopes() -> Seeds<Vec<u8>> {
    let sealed = |body: &[u8]| {
        let mut sealed = Vec::new();
        seal(body, &Secret::new(b"secret"), &mut sealed);
        sealed
    };
    // Without changes, as it is.
    let plain = |parts: &[&[u8]]| [b"\0", &parts.concat()[..]].concat();
    let envelope = sealed(FOO_BAR);
    let (sign, data) = envelope[1..].split_at(77);
    let wide_data = [b"\xdb\0\0\0\x04data\xc6\0\0\0\x09", FOO_BAR].concat();
    vec![
        ("another-body", plain(&[b"\x82", sign, b"\xa4data\xc4\x09\x81\xa3foo\xa3baz"])),
        ("body-empty", plain(&[&sealed(b"")])),
        ("body-for-4096", plain(&[&[b'x'; 4010]])),
        ("body-not-messagepack", plain(&[&sealed(b"\xc1\xff")])),
        ("changed-digit", [b"\x01\0\x10\0\x01", FOO_BAR].concat()),
        ("changed-header", [b"\x01\0\0\0\x5d", FOO_BAR].concat()),
        ("changed-length", [b"\x01\0\x54\0\x0a", FOO_BAR].concat()),
        ("data-a-str", plain(&[b"\x82", sign, b"\xa4data\xa9", FOO_BAR])),
        ("data-first", plain(&[b"\x82", data, sign])),
        ("data-twice", plain(&[b"\x83", data, sign, data])),
        (
            "digits-upper-case",
            plain(&[b"\x82", &sign[..13], &sign[13..].to_ascii_uppercase(), data]),
        ),
        ("extra-keys", plain(&[b"\x84", sign, b"\x91\x01\xc0", data, b"\xc4\x04data\xc0"])),
        ("from-python", plain(&[&envelope])),
        ("headers-wide", plain(&[b"\xdf\0\0\0\x02", sign, &wide_data])),
        ("inside-itself", plain(&[&sealed(&envelope)])),
        ("sign-a-bin", plain(&[b"\x82", &sign[..11], b"\xc4\x40", &sign[13..], data])),
        ("sign-alone", plain(&[b"\x81", sign])),
        ("sign-twice", plain(&[b"\x83", sign, sign, data])),
        ("three-changes", [b"\x03\0\x01\x01\0\0\x0c\x03\x41\0\x40\x02\x05", FOO_BAR].concat()),
        ("unsigned", plain(&[FOO_BAR])),
    ]
}

fn texts_of_errors() -> Seeds<Vec<u8>> {
    vec![
        ("auth", b"arrpc.error.AuthException: no".into()),
        ("both", b"arrpc.error.RpcException: arrpc.error.AuthException: no".into()),
        ("empty", b"".into()),
        ("for-4096-bytes", [b'x'; 4096 - 3 - 26].into()),
        ("for-4096-bytes-auth", [b'x'; 4096 - 3 - 27].into()),
        ("in-a-message", b"\xbcarrpc.error.RpcException: no".into()),
        ("lines", "one\r\ntwo\0 \u{2028}é€😀".into()),
        ("not-utf8", b"arrpc.error.RpcException: \xff\xc3\x28".into()),
        ("of-4096-bytes", [b'x'; 4096 - 3].into()),
        ("other", b"arrpc.error.OtherException: no".into()),
        ("prefix-alone", b"arrpc.error.RpcException: ".into()),
        ("prefix-cut", b"arrpc.error.RpcException:".into()),
        ("prefix-quoted", b"it said arrpc.error.RpcException: no".into()),
        ("reply", packed(&value!({"ok": true, "float": f64::NAN, "raw": vec![0u8; 3]}))),
    ]
}

fn texts_of_json() -> Seeds<&'static str> {
    vec![
        ("text-bin", r#"[{"$bin":"+/8="},{"$bin":""},{"$bin":"AA"}]"#),
        ("text-escapes", r#"["\u00e9\ud83d\ude00\"\\\/\b\f\n\r\t\u0000","\ud800"]"#),
        ("text-ext", r#"[{"$ext":[-128,"AAE="]},{"$ext":[-1,"AAAAAA=="]}]"#),
        ("text-float", r#"[{"$float":"NaN"},{"$float":"-Infinity"},-0.0,1e300,1E+2,5e-324]"#),
        ("text-integers", r#"[0,-1,18446744073709551615,-9223372036854775808]"#),
        ("text-integers-too-large", r#"["-0",18446744073709551616]"#),
        ("text-keys", r#"{"a":{"$$bin":1},"b":{"$bin":1,"c":2},"":{"$":1}}"#),
        ("text-keys-twice", r#"{"a":1,"a":2}"#),
        ("text-map", r#"{"$map":[[1,{"$map":[]}],["a",null],["a",{"$$x":1}]]}"#),
        ("text-time", r#"[{"$time":"1970-01-01T00:00:00.000000001Z"}]"#),
        ("text-time-late", r#"{"$time":"9999-12-30T22:00:00.999999999Z"}"#),
        ("text-time-offset", r#"{"$time":"1969-12-31t17:30:00.5-07:00"}"#),
        ("text-white-space", " [ 1 ,\n\t{ \"a\" : true }\r\n] "),
    ]
}

fn values_for_json() -> Seeds<Value> {
    let nested = |wrap: fn(Value) -> Value, depth| (0..depth).fold(Value::Nil, |v, _| wrap(v));
    let time = |bytes: &[u8]| Value::Ext(-1, bytes.into());
    vec![
        ("value-any-keys", value!({1: 2, (Value::Nil): {"$bin": 1}, "a": {(value!([1])): 1.5}})),
        ("value-deepest", nested(|value| value!([value]), 127)),
        ("value-deep-keys", nested(|value| value!({value: 1}), 42)),
        ("value-floats", value!([f64::NAN, f64::INFINITY, -0.0, 0.1, Value::F32(0.1)])),
        ("value-ext", value!([Value::Ext(5, vec![]), Value::Ext(-128, vec![0; 16])])),
        ("value-keys-twice", value!([{"a": 1, "a": 2}, {"$a": 1, "$a": 2}, {"$a": 1, "b": 2}])),
        ("value-texts", value!(["$bin", "\u{7f}\u{2028}\"\\/\0", {"$x": {"$$": nil}}])),
        (
            "value-times",
            value!([
                time(&[0xff; 4]),
                time(&[0xff; 8]),
                time(&[0, 0, 0, 4, 0, 0, 0, 0]),
                time(&[0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
            ]),
        ),
        ("value-too-deep", nested(|value| value!([value]), 128)),
    ]
}

/// The options of the target, then what the peer sends.
fn sessions() -> Seeds<Vec<u8>> {
    const PLAIN: u8 = 0;
    const SIGNED: u8 = 1;
    const LATER: u8 = 2;
    const SILENT: u8 = 4;
    const RESET: u8 = 8;
    const RAW: u8 = 16;
    const ENCRYPTED: u8 = 32 | SIGNED;
    let seed =
        |read: u8, flags: u8, sent: &[u8]| [&[read, 255, 63, 16, 63, 3, flags], sent].concat();
    let mut sealed = Vec::new();
    seal(FOO_BAR, &Secret::new(b"secret"), &mut sealed);
    let mut forged = Vec::new();
    seal(FOO_BAR, &Secret::new(b"guess"), &mut forged);
    let encrypted = |nonce, body: &[u8], secret: &[u8]| {
        seal_request_with([nonce; 24], body, &Cipher::new(&Secret::new(secret)))
    };
    let four: Vec<_> = [b"\x04", b"\x01", b"\xc1", b"\x03"]
        .map(|body| encrypted(body[0], body, b"secret"))
        .concat();
    let guessed = encrypted(1, FOO_BAR, b"guess");
    let mixed = [FOO_BAR, b"\x01\xc0\x93\x01\x02\x03", &[0xa1, 0xff], FOO_BAR].concat();
    vec![
        ("closed", seed(255, PLAIN, &mixed)),
        ("byte-by-byte", seed(0, PLAIN, &mixed)),
        ("later", seed(255, LATER, &mixed)),
        ("later-in-threes", seed(2, LATER, &mixed)),
        ("signed", seed(255, SIGNED, &sealed.repeat(3))),
        ("signed-later", seed(9, SIGNED | LATER, &sealed.repeat(3))),
        ("forged", seed(255, SIGNED, &[&forged[..], &sealed, &forged.repeat(3)].concat())),
        ("encrypted", seed(255, ENCRYPTED, &four)),
        ("encrypted-later", seed(9, ENCRYPTED | LATER, &[&four[..], b"\x07", &four].concat())),
        ("encrypted-raw", seed(30, ENCRYPTED | RAW, &four)),
        ("encrypted-reset", seed(30, ENCRYPTED | RESET, &four)),
        ("encrypted-forged", seed(255, ENCRYPTED, &[&sealed[..], &guessed, FOO_BAR].concat())),
        ("encrypted-not-decrypted", seed(255, SIGNED, &four)),
        ("encrypted-no-secret", seed(255, PLAIN, &four)),
        ("unsigned", seed(255, SIGNED, &mixed)),
        ("no-secret", seed(255, PLAIN, &sealed)),
        ("half", seed(255, SILENT, b"\x01\x92\x01")),
        ("half-later", seed(0, SILENT | LATER, b"\x01\x92\x01")),
        ("idle", seed(255, SILENT, &mixed)),
        ("reset", seed(255, RESET, &mixed)),
        ("reset-later", seed(3, RESET | LATER, &mixed)),
        ("too-long", seed(255, PLAIN, b"\x01\xc6\xff\xff\xff\xff")),
        ("too-deep", seed(255, PLAIN, &[b"\x01", &[0x91; 20][..]].concat())),
        ("too-many", seed(255, PLAIN, b"\x01\xdd\0\0\x01\0\xc0")),
        ("reserved", seed(255, LATER, b"\x01\xc1\x02")),
        ("http", seed(255, PLAIN, b"GET / HTTP/1.1\r\n\r\n")),
    ]
}
