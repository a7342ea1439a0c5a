//! How large a run is, and what it finds.

/// The size of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scale {
    /// The one whose figures count.
    Full,
    /// Some seconds, to see that nothing is broken: on any machine, so that times do not count.
    Small,
}

impl Scale {
    /// Whether times count.
    pub(crate) fn is_timed(self) -> bool {
        self == Self::Full
    }

    pub(crate) fn pick<T>(self, full: T, small: T) -> T {
        match self {
            Self::Full => full,
            Self::Small => small,
        }
    }
}

/// Why a run fails.
#[derive(Debug)]
pub(crate) enum Failure {
    /// These marks were missed.
    Broken(Vec<String>),
    /// Something that the run needs is missing.
    Impossible(String),
}

/// The marks that were missed so far.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    missed: Vec<String>,
}

impl Marks {
    /// Notes `mark` as missed unless it is `held`.
    pub(crate) fn check(&mut self, held: bool, mark: impl FnOnce() -> String) {
        if !held {
            self.missed.push(mark());
        }
    }

    pub(crate) fn verdict(self) -> Result<(), Failure> {
        match self.missed.is_empty() {
            true => Ok(()),
            false => Err(Failure::Broken(self.missed)),
        }
    }
}
