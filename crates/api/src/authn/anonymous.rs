//! Who shows nothing.

/// Whether requests without credentials are `system:anonymous` instead of refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Anonymous {
    /// They are refused.
    #[default]
    Never,
    /// They are.
    Always,
    /// For these paths only, exactly as they are written.
    Paths(Vec<String>),
}

impl Anonymous {
    /// Whether a request for `path` may be nobody's.
    pub fn allows(&self, path: &str) -> bool {
        match self {
            Self::Never => false,
            Self::Always => true,
            Self::Paths(paths) => paths.iter().any(|one| one == path),
        }
    }
}
