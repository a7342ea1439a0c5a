//! The timestamp ext of the MessagePack spec, to and from RFC 3339. Knows no JSON.

use jiff::Timestamp;

/// A timestamp of 8 bytes has the seconds in its low 34 bits, the nanoseconds above.
const SECOND_BITS: u32 = 34;
const SECOND_MAX: u64 = (1 << SECOND_BITS) - 1;

/// Returns the RFC 3339 text from which [`to_bytes`] makes exactly these bytes.
pub(super) fn to_text(bytes: &[u8]) -> Option<String> {
    let (second, nanosecond) = match bytes.len() {
        4 => (u32::from_be_bytes(bytes.try_into().ok()?).into(), 0),
        8 => {
            let packed = u64::from_be_bytes(bytes.try_into().ok()?);
            (i64::try_from(packed & SECOND_MAX).ok()?, u32::try_from(packed >> SECOND_BITS).ok()?)
        }
        _ => {
            let (nanosecond, second) = bytes.split_first_chunk()?;
            (i64::from_be_bytes(second.try_into().ok()?), u32::from_be_bytes(*nanosecond))
        }
    };
    let text = Timestamp::new(second, nanosecond.try_into().ok()?).ok()?.to_string();
    (to_bytes(&text).as_deref() == Ok(bytes)).then_some(text)
}

/// Makes the smallest MessagePack timestamp for RFC 3339 text.
pub(super) fn to_bytes(text: &str) -> Result<Vec<u8>, String> {
    // The parser takes much that RFC 3339 does not, and takes second 60 for 59.
    if !is_rfc3339(text) {
        return Err("needs RFC 3339 with an offset, such as \"2026-01-31T23:59:59.5Z\"".into());
    }
    if text.get(17..19) == Some("60") {
        return Err("has a leap second, which timestamps do not count; write 59".into());
    }
    let time: Timestamp = text.parse().map_err(|error| format!("is no such time: {error}"))?;
    // Both casts keep the number: the time lies within 12,000 years of 1970.
    let second = time.as_nanosecond().div_euclid(1_000_000_000) as i64;
    let nanosecond = time.as_nanosecond().rem_euclid(1_000_000_000) as u32;
    Ok(match u64::try_from(second) {
        Ok(second) if second <= SECOND_MAX => {
            let packed = u64::from(nanosecond) << SECOND_BITS | second;
            match u32::try_from(packed) {
                Ok(second) => second.to_be_bytes().to_vec(),
                Err(_) => packed.to_be_bytes().to_vec(),
            }
        }
        _ => [nanosecond.to_be_bytes().as_slice(), &second.to_be_bytes()].concat(),
    })
}

/// Tells whether text has the form of RFC 3339, section 5.6, whatever its numbers.
fn is_rfc3339(text: &str) -> bool {
    let form = text.replace(|c: char| c.is_ascii_digit(), "0").to_ascii_uppercase();
    let Some(rest) = form.strip_prefix("0000-00-00T00:00:00") else {
        return false;
    };
    let offset = match rest.strip_prefix(".0") {
        Some(fraction) => fraction.trim_start_matches('0'),
        None => rest,
    };
    matches!(offset, "Z" | "+00:00" | "-00:00")
}
