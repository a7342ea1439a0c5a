//! How many values a JSON text holds, before anything is made of it. Does not tell whether it is
//! one.

/// Counts the values in a text, if it is JSON: keys are values too, as in a message. An empty array
/// or object counts as two.
pub(crate) fn count_values(text: &[u8]) -> usize {
    let mut bytes = text.iter();
    let mut count = 1;
    while let Some(byte) = bytes.next() {
        match byte {
            // Each value but the first has one of these before it.
            b',' | b':' | b'[' | b'{' => count += 1,
            b'"' => {
                while let Some(byte) = bytes.next().filter(|&&byte| byte != b'"') {
                    if *byte == b'\\' {
                        bytes.next();
                    }
                }
            }
            _ => {}
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_counted_and_what_is_in_strings_is_not() {
        for (text, count) in [
            ("1", 1),
            ("[]", 2),
            ("[1, 2]", 3),
            (r#"{"a": 1, "b": [true]}"#, 6),
            (r#"["[,:{", "\\\",[", "\\\\", 4]"#, 5),
            (r#""[,"#, 1),
        ] {
            assert_eq!(count_values(text.as_bytes()), count, "{text}");
        }
    }
}
