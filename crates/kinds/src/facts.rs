//! What discovery says about a resource: names, scope, verbs, subresources.
//!
//! The built-in facts are `resources.tsv`, written by `xtask resources` from upstream's discovery
//! documents, in upstream's order. A custom kind brings its own [`Facts`].

use skiff_object::{Key, TypeId};

/// What discovery says about one served version of a resource.
#[derive(Clone, Debug)]
pub struct Facts {
    /// API group, `""` for the core group.
    pub group: Key,
    /// Served version (`v1`).
    pub version: Key,
    /// `group/version`, or only the version for the core group: the `apiVersion` of objects.
    pub api_version: Key,
    /// The name in paths: `deployments`.
    pub plural: Key,
    /// `deployment`
    pub singular: Key,
    /// The `kind` of objects: `Deployment`.
    pub kind: Key,
    /// The `kind` of lists: `DeploymentList`.
    pub list_kind: Key,
    /// `deploy`
    pub short_names: Vec<Key>,
    /// `all`, `api-extensions`
    pub categories: Vec<Key>,
    /// Whether objects live in a namespace.
    pub namespaced: bool,
    /// What may be done with the resource itself.
    pub verbs: Verbs,
    /// In upstream's order.
    pub subresources: Vec<Subresource>,
    /// As discovery shows it; empty for what is never stored.
    pub storage_version_hash: Key,
    /// The type of objects in the kind's schema.
    pub ty: TypeId,
    /// The type of lists, when it has one of its own.
    pub list_ty: Option<TypeId>,
    /// Where objects are stored: the same place for every served version of one resource
    /// (`events.k8s.io/v1` is stored as core `v1`).
    pub storage: Storage,
}

/// Where the objects of a resource are stored, and in which version.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Storage {
    /// The group in storage keys.
    pub group: Key,
    /// The version that stored objects are in.
    pub version: Key,
}

/// A path below an object: `status`, `scale`, `exec`.
#[derive(Clone, Debug)]
pub struct Subresource {
    /// The last segment of its path.
    pub name: Key,
    /// The `apiVersion` of what is exchanged: the parent's own, or another's (`autoscaling/v1`).
    pub api_version: Key,
    /// The `kind` of what is exchanged.
    pub kind: Key,
    /// Whether discovery names group and version explicitly (only where they are not the parent's).
    pub foreign: bool,
    /// The type of what is exchanged; `None` for options that travel in the query (`exec`).
    pub ty: Option<TypeId>,
    /// What may be done.
    pub verbs: Verbs,
}

/// A verb of the API.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Verb {
    /// `create`
    Create,
    /// `delete`
    Delete,
    /// `deletecollection`
    DeleteCollection,
    /// `get`
    Get,
    /// `list`
    List,
    /// `patch`
    Patch,
    /// `update`
    Update,
    /// `watch`
    Watch,
}

impl Verb {
    /// Every verb, in the order in which discovery lists them.
    pub const ALL: [Self; 8] = [
        Self::Create,
        Self::Delete,
        Self::DeleteCollection,
        Self::Get,
        Self::List,
        Self::Patch,
        Self::Update,
        Self::Watch,
    ];

    /// The word in discovery and in RBAC rules.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
            Self::Get => "get",
            Self::List => "list",
            Self::Patch => "patch",
            Self::Update => "update",
            Self::Watch => "watch",
        }
    }

    /// The letter in `resources.tsv`.
    const fn letter(self) -> char {
        match self {
            Self::Create => 'c',
            Self::Delete => 'd',
            Self::DeleteCollection => 'x',
            Self::Get => 'g',
            Self::List => 'l',
            Self::Patch => 'p',
            Self::Update => 'u',
            Self::Watch => 'w',
        }
    }
}

/// A set of verbs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Verbs(u8);

impl Verbs {
    /// What a stored resource allows.
    pub const ALL: Self = Self(0xff);

    /// No verb.
    pub const NONE: Self = Self(0);

    /// With one more verb.
    #[must_use]
    pub const fn with(self, verb: Verb) -> Self {
        Self(self.0 | (1 << verb as u8))
    }

    /// Whether `verb` is allowed.
    pub const fn contains(self, verb: Verb) -> bool {
        self.0 & (1 << verb as u8) != 0
    }

    /// The verbs, in the order in which discovery lists them.
    pub fn iter(self) -> impl Iterator<Item = Verb> {
        Verb::ALL.into_iter().filter(move |verb| self.contains(*verb))
    }

    /// Reads the letters of `resources.tsv`.
    pub(crate) fn from_letters(letters: &str) -> Self {
        Verb::ALL.into_iter().filter(|verb| letters.contains(verb.letter())).fold(Self::NONE, Self::with)
    }
}

impl Facts {
    /// The subresource called `name`.
    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|sub| sub.name == *name)
    }

    /// Whether `status` is a path of its own, written only through it.
    pub fn has_status(&self) -> bool {
        self.subresource("status").is_some()
    }

    /// Whether objects are kept at all: reviews and bindings are answered and forgotten.
    pub const fn is_stored(&self) -> bool {
        self.verbs.contains(Verb::Get) && self.verbs.contains(Verb::Create)
    }

    /// `deployments.apps`, `pods`: the resource's name with its group, as messages show it.
    pub fn group_resource(&self) -> String {
        match self.group.as_str() {
            "" => self.plural.as_str().to_owned(),
            group => format!("{}.{group}", self.plural.as_str()),
        }
    }
}

/// Splits an `apiVersion` into group and version: `apps/v1`, `v1`.
pub fn split_api_version(api_version: &str) -> (&str, &str) {
    api_version.split_once('/').unwrap_or(("", api_version))
}
