//! What expressions ask of the authorizer: `authorizer.group('apps').resource('deployments').check('get').allowed()`.

use std::fmt;

/// Who is asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The user who made the request.
    Requester,
    /// A service account.
    ServiceAccount {
        /// Its namespace.
        namespace: Box<str>,
        /// Its name.
        name: Box<str>,
    },
}

/// What is asked for, without the verb.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// A path that is no resource.
    Path {
        /// For whom.
        subject: Subject,
        /// The path.
        path: Box<str>,
    },
    /// A resource.
    Resource {
        /// For whom.
        subject: Subject,
        /// Its group.
        group: Box<str>,
        /// Its plural name.
        resource: Box<str>,
        /// `""` for the resource itself.
        subresource: Box<str>,
        /// `""` for all namespaces.
        namespace: Box<str>,
        /// `""` for all names.
        name: Box<str>,
        /// As written, unparsed.
        field_selector: Box<str>,
        /// As written, unparsed.
        label_selector: Box<str>,
    },
}

/// What the authorizer said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// Whether the action is allowed.
    pub allowed: bool,
    /// Why.
    pub reason: Box<str>,
    /// What kept the authorizer from deciding; `""` when nothing did.
    pub error: Box<str>,
}

/// Answers the checks of expressions.
pub trait Authorizer: Sync {
    /// Whether `verb` on what `check` describes is allowed.
    fn decide(&self, check: &Check, verb: &str) -> Decision;
}

impl fmt::Debug for dyn Authorizer + '_ {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authorizer")
    }
}
