//! One MessagePack header: how many bytes it and its payload take, and how many values it
//! announces. Source: the MessagePack specification, "Formats".

/// What the first bytes of a value say about the rest of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// The bytes of the header itself, the marker included.
    pub(crate) size: usize,
    /// The bytes that follow the header and belong to this value alone (text, binary, numbers).
    pub(crate) payload: u64,
    /// The values inside: the elements of an array, the keys and the values of a map.
    pub(crate) children: u64,
    pub(crate) kind: Kind,
}

/// The families of values that the wire layer tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Scalar,
    Str,
    Bin,
    Ext,
    Array,
    Map,
    /// 0xc1, which the specification never assigns: nobody can tell where such a value ends.
    Reserved,
}

impl Header {
    /// Reads the header at the start of `bytes`; `None` if not all of it is there.
    #[inline(always)]
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let (&marker, rest) = bytes.split_first()?;
        Some(match marker {
            0x00..=0x7f | 0xe0..=0xff | 0xc0 | 0xc2 | 0xc3 => Self::payload(Kind::Scalar, 1, 0),
            0x80..=0x8f => Self::children(Kind::Map, 1, 2 * u64::from(marker & 0x0f)),
            0x90..=0x9f => Self::children(Kind::Array, 1, u64::from(marker & 0x0f)),
            0xa0..=0xbf => Self::payload(Kind::Str, 1, u64::from(marker & 0x1f)),
            0xc1 => Self::payload(Kind::Reserved, 1, 0),
            0xc4 => Self::payload(Kind::Bin, 2, be8(rest)?),
            0xc5 => Self::payload(Kind::Bin, 3, be16(rest)?),
            0xc6 => Self::payload(Kind::Bin, 5, be32(rest)?),
            // The type byte of an ext counts as payload.
            0xc7 => Self::payload(Kind::Ext, 2, be8(rest)? + 1),
            0xc8 => Self::payload(Kind::Ext, 3, be16(rest)? + 1),
            0xc9 => Self::payload(Kind::Ext, 5, be32(rest)? + 1),
            0xca | 0xce | 0xd2 => Self::payload(Kind::Scalar, 1, 4),
            0xcb | 0xcf | 0xd3 => Self::payload(Kind::Scalar, 1, 8),
            0xcc | 0xd0 => Self::payload(Kind::Scalar, 1, 1),
            0xcd | 0xd1 => Self::payload(Kind::Scalar, 1, 2),
            0xd4..=0xd8 => Self::payload(Kind::Ext, 1, (1 << (marker - 0xd4)) + 1),
            0xd9 => Self::payload(Kind::Str, 2, be8(rest)?),
            0xda => Self::payload(Kind::Str, 3, be16(rest)?),
            0xdb => Self::payload(Kind::Str, 5, be32(rest)?),
            0xdc => Self::children(Kind::Array, 3, be16(rest)?),
            0xdd => Self::children(Kind::Array, 5, be32(rest)?),
            0xde => Self::children(Kind::Map, 3, 2 * be16(rest)?),
            0xdf => Self::children(Kind::Map, 5, 2 * be32(rest)?),
        })
    }

    #[inline]
    fn payload(kind: Kind, size: usize, payload: u64) -> Self {
        Self { size, payload, children: 0, kind }
    }

    #[inline]
    fn children(kind: Kind, size: usize, children: u64) -> Self {
        Self { size, payload: 0, children, kind }
    }
}

/// The bytes of a value that begins with this marker, if it has a header of one byte and nothing
/// inside; what [`Header::read`] says of it, in one look at a table.
#[inline]
pub(crate) fn simple_size(marker: u8) -> Option<usize> {
    match SIMPLE_SIZES.get(usize::from(marker)) {
        Some(&size) if size > 0 => Some(usize::from(size)),
        _ => None,
    }
}

/// The bytes of each simple value, by its marker; 0 for the others.
#[allow(clippy::indexing_slicing)] // computed while compiling: what could panic would not compile
const SIMPLE_SIZES: [u8; 256] = {
    let mut sizes = [0; 256];
    let mut marker = 0;
    while marker < 256 {
        sizes[marker] = match marker {
            0x00..=0x7f | 0xe0..=0xff | 0xc0 | 0xc2 | 0xc3 => 1,
            0xa0..=0xbf => 1 + (marker as u8 & 0x1f),
            0xca | 0xce | 0xd2 => 5,
            0xcb | 0xcf | 0xd3 => 9,
            0xcc | 0xd0 => 2,
            0xcd | 0xd1 => 3,
            0xd4..=0xd8 => 2 + (1 << (marker - 0xd4)),
            _ => 0,
        };
        marker += 1;
    }
    sizes
};

#[inline]
fn be8(bytes: &[u8]) -> Option<u64> {
    bytes.first().map(|&byte| u64::from(byte))
}

#[inline]
fn be16(bytes: &[u8]) -> Option<u64> {
    bytes.first_chunk().map(|&bytes| u64::from(u16::from_be_bytes(bytes)))
}

#[inline]
fn be32(bytes: &[u8]) -> Option<u64> {
    bytes.first_chunk().map(|&bytes| u64::from(u32::from_be_bytes(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_simple_values_agrees_with_their_headers() {
        for marker in 0..=u8::MAX {
            let header = Header::read(&[marker, 0, 0, 0, 0]).expect("all of it is there");
            let is_simple = !matches!(header.kind, Kind::Array | Kind::Map | Kind::Reserved);
            let size = header.size + header.payload as usize;
            let expected = (is_simple && header.size == 1).then_some(size);
            assert_eq!(simple_size(marker), expected, "{marker:#x}");
        }
    }
}
