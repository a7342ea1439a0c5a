//! Inputs for the check, each made from a seed of its own and nothing else: valid messages of every
//! format, and the ways in which bytes of a peer go wrong.

use fastrand::Rng;

/// A byte of every family of formats, and the edges of each.
const MARKERS: &[u8] = &[
    0x00, 0x01, 0x20, 0x7f, 0x80, 0x81, 0x82, 0x8f, 0x90, 0x91, 0x92, 0x9f, 0xa0, 0xa1, 0xa5, 0xbf,
    0xc0, 0xc1, 0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7, 0xc8, 0xc9, 0xca, 0xcb, 0xcc, 0xcd, 0xce, 0xcf,
    0xd0, 0xd1, 0xd2, 0xd3, 0xd4, 0xd5, 0xd6, 0xd7, 0xd8, 0xd9, 0xda, 0xdb, 0xdc, 0xdd, 0xde, 0xdf,
    0xe0, 0xff,
];

/// Lengths that a header may claim: the edges of the formats, and of `i32` and `u32`.
const CLAIMS: &[u32] =
    &[0, 1, 255, 256, 4096, 0xffff, 0x1_0000, 0x7fff_ffff, 0x8000_0000, 0xffff_fffe, 0xffff_ffff];

/// Makes inputs, in a buffer that it uses again.
#[derive(Debug, Default)]
pub(crate) struct Inputs {
    bytes: Vec<u8>,
}

impl Inputs {
    /// The input of a seed, always the same.
    pub(crate) fn make(&mut self, seed: u64) -> &[u8] {
        let mut rng = Rng::with_seed(seed);
        let out = &mut self.bytes;
        out.clear();
        match rng.u16(..) {
            0..32 => long_message(&mut rng, out),
            32..64 => python_length(&mut rng, out),
            64..128 => deep_message(&mut rng, out, 1_000..1_050),
            128..4_096 => deep_message(&mut rng, out, 2..60),
            4_096..8_192 => random_bytes(&mut rng, out),
            _ => {
                let size = match rng.u8(..) {
                    0..192 => rng.usize(1..40),
                    192..248 => rng.usize(40..160),
                    _ => rng.usize(160..700),
                };
                message(&mut rng, out, size);
            }
        }
        match rng.u8(..16) {
            0..5 => {}
            5..7 => out.truncate(rng.usize(..out.len())),
            7..9 => {
                for _ in 0..rng.u8(1..4) {
                    message(&mut rng, out, 24);
                }
                if rng.bool() {
                    out.truncate(rng.usize(..out.len()));
                }
            }
            9..11 => claim(&mut rng, out),
            _ => mutate(&mut rng, out),
        }
        out
    }
}

/// Changes bytes in one to four ways.
pub(crate) fn mutate(rng: &mut Rng, bytes: &mut Vec<u8>) {
    for _ in 0..rng.u8(1..5) {
        let length = bytes.len();
        let at = rng.usize(..=length);
        match (rng.u8(..8), bytes.get_mut(at)) {
            (0, Some(byte)) => *byte ^= 1 << rng.u8(..8),
            (1, Some(byte)) => *byte = rng.u8(..),
            (2, Some(byte)) => *byte = marker(rng),
            (3, Some(byte)) => *byte = byte.wrapping_add_signed(rng.i8(-2..=2)),
            (4, Some(_)) => {
                bytes.drain(at..length.min(at + rng.usize(1..5)));
            }
            (5, Some(_)) => {
                let end = length.min(at + rng.usize(1..17));
                bytes.extend_from_within(at..end);
                // Behind the range as well as at the end of the input.
                if rng.bool() {
                    bytes[at..].rotate_right(end - at);
                }
            }
            (6, _) => claim(rng, bytes),
            _ => bytes.insert(at, marker(rng)),
        }
    }
}

/// Puts a header anywhere that claims a length, mostly more than there is.
fn claim(rng: &mut Rng, bytes: &mut Vec<u8>) {
    let at = rng.usize(..=bytes.len());
    let length = CLAIMS[rng.usize(..CLAIMS.len())];
    let wide = [0xc6, 0xc9, 0xdb, 0xdd, 0xdf][rng.usize(..5)];
    let narrow = [0xc5, 0xc8, 0xda, 0xdc, 0xde][rng.usize(..5)];
    let [.., a, b] = length.to_be_bytes();
    if rng.bool() {
        bytes.splice(at..at, std::iter::once(wide).chain(length.to_be_bytes()));
    } else {
        bytes.splice(at..at, [narrow, a, b]);
    }
}

fn marker(rng: &mut Rng) -> u8 {
    MARKERS[rng.usize(..MARKERS.len())]
}

fn random_bytes(rng: &mut Rng, out: &mut Vec<u8>) {
    for _ in 0..rng.u8(1..64) {
        let byte = if rng.bool() { marker(rng) } else { rng.u8(..) };
        out.push(byte);
    }
}

/// Appends one valid message of about `size` bytes.
fn message(rng: &mut Rng, out: &mut Vec<u8>, size: usize) {
    let end = out.len() + size;
    complete(rng, out, 1, end);
}

/// Appends as many values as are owed, containers only before `end`.
fn complete(rng: &mut Rng, out: &mut Vec<u8>, mut owed: u64, end: usize) {
    while owed > 0 {
        owed -= 1;
        if out.len() + (owed as usize) < end && rng.u8(..8) < 3 {
            let count = match rng.u8(..16) {
                0 => rng.u64(14..19),
                1 => 0,
                _ => rng.u64(1..6),
            };
            let is_map = rng.bool();
            container_header(rng, out, is_map, count);
            owed += if is_map { 2 * count } else { count };
        } else {
            leaf(rng, out);
        }
    }
}

/// Appends containers inside each other, and what else they owe.
fn deep_message(rng: &mut Rng, out: &mut Vec<u8>, depth: std::ops::Range<u64>) {
    let mut owed = 1;
    for _ in 0..rng.u64(depth) {
        owed -= 1;
        let (is_map, count) = match rng.u8(..16) {
            0 => (false, 2),
            1..4 => (true, 1),
            _ => (false, 1),
        };
        container_header(rng, out, is_map, count);
        // The next container is a map's key, or the value behind a small key.
        if is_map && rng.bool() {
            out.push(rng.u8(..0x80));
            owed += 1;
        } else {
            owed += if is_map { 2 } else { count };
        }
    }
    complete(rng, out, owed, 0);
}

/// Appends a message with lengths that take 16 and 32 bits.
fn long_message(rng: &mut Rng, out: &mut Vec<u8>) {
    let length = *rng.choice(&[255, 256, 300, 4_000, 65_535, 65_536, 66_000]).unwrap_or(&0);
    container_header(rng, out, false, 2);
    if rng.bool() {
        sized_leaf(rng, out, length);
    } else {
        container_header(rng, out, false, length as u64);
        let item = [0xc0, 0x05, 0xe0][rng.usize(..3)];
        out.resize(out.len() + length, item);
    }
    message(rng, out, 20);
}

/// Appends a message whose shortest form has a multiple of 4,096 bytes, or one more or less.
fn python_length(rng: &mut Rng, out: &mut Vec<u8>) {
    let total = 4096 * rng.usize(1..4) + rng.usize(..3) - 1;
    let mut tree = Vec::new();
    message(rng, &mut tree, 100);
    let mut shortest = Vec::new();
    let value = rmpv::decode::read_value(&mut tree.as_slice()).expect("a valid message");
    rmpv::encode::write_value(&mut shortest, &value).expect("writing to a Vec");
    // A tree and a str in an array; a tree as the key of a str; a str alone.
    match rng.u8(..4) {
        0 | 1 if shortest.len() < 3_000 => out.push(0x92),
        2 if shortest.len() < 3_000 => out.push(0x81),
        _ => shortest.clear(),
    }
    out.append(&mut shortest);
    let length = (total - out.len() - 3) as u16;
    out.push(if rng.bool() { 0xda } else { 0xc5 });
    out.extend_from_slice(&length.to_be_bytes());
    out.resize(total, b'x');
}

fn leaf(rng: &mut Rng, out: &mut Vec<u8>) {
    match rng.u8(..16) {
        0 => out.push(0xc0),
        1 => out.push(0xc2 + rng.u8(..2)),
        2..4 => out.push(rng.u8(..0x80)),
        4 => out.push(rng.u8(0xe0..)),
        5..9 => {
            // Every width, and numbers as small as a width can hold, or as large.
            let marker = rng.u8(0xca..=0xd3);
            let size = [4, 8, 1, 2, 4, 8, 1, 2, 4, 8][usize::from(marker - 0xca)];
            let number = rng.u64(..) >> rng.u8(..64);
            let number = if rng.bool() { number } else { number.wrapping_neg() };
            out.push(marker);
            out.extend_from_slice(&number.to_be_bytes()[8 - size..]);
        }
        _ => {
            let length = match rng.u8(..32) {
                0 => rng.usize(28..36),
                1 => rng.usize(250..260),
                2..5 => 1 << rng.u8(..5),
                _ => rng.usize(..12),
            };
            sized_leaf(rng, out, length);
        }
    }
}

/// Appends a str, bin or ext, in any format that can hold it.
fn sized_leaf(rng: &mut Rng, out: &mut Vec<u8>, length: usize) {
    match rng.u8(..4) {
        0 => {
            sized_header(rng, out, [0xc4, 0xc5, 0xc6], length);
            random_fill(rng, out, length);
        }
        1 => {
            match length {
                1 | 2 | 4 | 8 | 16 if rng.bool() => out.push(0xd4 + length.ilog2() as u8),
                _ => sized_header(rng, out, [0xc7, 0xc8, 0xc9], length),
            }
            out.push(rng.u8(..));
            random_fill(rng, out, length);
        }
        _ => {
            if length < 32 && rng.u8(..4) > 0 {
                out.push(0xa0 | length as u8);
            } else {
                sized_header(rng, out, [0xd9, 0xda, 0xdb], length);
            }
            let end = out.len() + length;
            while let Some(room) = end.checked_sub(out.len()).filter(|&room| room > 0) {
                let text = ["a", "\0", "$", "\u{7f}", "é", "ß", "\u{7ff}", "€", "\u{ffff}", "😀"]
                    [if rng.bool() { 0 } else { rng.usize(..10) }];
                out.extend_from_slice(if text.len() <= room { text } else { "z" }.as_bytes());
            }
        }
    }
}

fn random_fill(rng: &mut Rng, out: &mut Vec<u8>, length: usize) {
    let start = out.len();
    out.resize(start + length, 0);
    rng.fill(&mut out[start..]);
}

fn container_header(rng: &mut Rng, out: &mut Vec<u8>, is_map: bool, count: u64) {
    let (small, wide) = if is_map { (0x80, [0xde, 0xdf]) } else { (0x90, [0xdc, 0xdd]) };
    if count < 16 && rng.u8(..8) > 0 {
        out.push(small | count as u8);
    } else {
        wide_header(rng, out, wide, count as usize);
    }
}

/// A header of one, two or four bytes of length, mostly the shortest.
fn sized_header(rng: &mut Rng, out: &mut Vec<u8>, markers: [u8; 3], length: usize) {
    let [marker8, wide @ ..] = markers;
    match u8::try_from(length) {
        Ok(length) if rng.u8(..4) > 0 => out.extend_from_slice(&[marker8, length]),
        _ => wide_header(rng, out, wide, length),
    }
}

fn wide_header(rng: &mut Rng, out: &mut Vec<u8>, [marker16, marker32]: [u8; 2], length: usize) {
    match u16::try_from(length) {
        Ok(length) if rng.bool() => {
            out.push(marker16);
            out.extend_from_slice(&length.to_be_bytes());
        }
        _ => {
            out.push(marker32);
            out.extend_from_slice(&(length as u32).to_be_bytes());
        }
    }
}
