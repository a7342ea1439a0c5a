//! What may be wrong with a file of tokens, though it can be read. Reading it is the library's.

use std::fs;
use std::path::Path;

/// Warns of lines that may have been meant as `NAME: TOKEN` and are tokens as a whole. Says only which
/// they are. Whether there is a file is not asked here.
pub(super) fn warn_of_colons(file: &Path) {
    let text = fs::read_to_string(file).unwrap_or_default();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if !line.starts_with('#') && line.contains(':') && !line.contains(": ") {
            let (file, line) = (file.display(), index + 1);
            tracing::warn!(%file, line, "no space behind the colon, so the whole line is a token");
        }
    }
}
