//! x
use crate::verdict::{Failure, Scale};
pub(crate) fn run(_: Scale) -> Result<(), Failure> { Ok(()) }
