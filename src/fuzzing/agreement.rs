//! The wire layer makes the same of any bytes as rmpv does.

use crate::wire::agreement::Agreement;

/// The input is messages, one behind the other.
pub fn agreement(data: &[u8]) {
    Agreement::default().check(data);
}
