//! Lines that the command prints to be pasted into a shell.

use std::env;
use std::path::PathBuf;

/// How this command was called.
pub(crate) fn program() -> PathBuf {
    env::args_os().next().unwrap_or_else(|| "arrpc".into()).into()
}

/// A line of these words as a POSIX shell reads them back.
pub(crate) fn line(words: impl IntoIterator<Item = PathBuf>) -> String {
    let words: Vec<_> = words.into_iter().map(|word| quoted(&word.to_string_lossy())).collect();
    words.join(" ")
}

fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:,+@%=".contains(c);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}
