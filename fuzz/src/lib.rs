//! What the targets share: how bytes choose a type, and how bytes become objects of a type.
//!
//! Decoders are given bytes as they are. What works on objects ([`skiff_object::patch`], [`skiff_object::managed`]) is
//! given objects that [`Source`] makes from the bytes along a schema: coverage then guides which fields are set, not
//! which texts are JSON.

mod custom;
mod source;

pub use source::Source;

use custom::CUSTOM;
use skiff_object::{Schema, Tree, TypeId, conform, json};

/// The kinds that are decoded, by the first byte of an input; behind them is a custom one. New ones go to the end: the
/// corpora depend on the order.
const KINDS: &[(&str, &str)] = &[
    ("v1", "Pod"),
    ("apps/v1", "Deployment"),
    ("v1", "Service"),
    ("v1", "ConfigMap"),
    ("v1", "Secret"),
    ("v1", "Node"),
    ("events.k8s.io/v1", "Event"),
    ("coordination.k8s.io/v1", "Lease"),
    ("apiextensions.k8s.io/v1", "CustomResourceDefinition"),
    ("autoscaling/v2", "HorizontalPodAutoscaler"),
    ("authorization.k8s.io/v1", "SubjectAccessReview"),
    ("certificates.k8s.io/v1", "CertificateSigningRequest"),
    ("networking.k8s.io/v1", "NetworkPolicy"),
    ("policy/v1", "PodDisruptionBudget"),
    ("v1", "Namespace"),
    ("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicy"),
];

/// A kind and what is known about it.
#[derive(Clone, Copy)]
pub struct Kind {
    /// `apps/v1`
    pub api_version: &'static str,
    /// `Deployment`
    pub kind: &'static str,
    /// The schema it is in.
    pub schema: &'static Schema,
    /// Its type.
    pub ty: TypeId,
}

impl Kind {
    /// The kind that a byte stands for.
    pub fn of(byte: u8) -> Self {
        let Some((api_version, kind)) = KINDS.get(usize::from(byte) % (KINDS.len() + 1)).copied() else {
            return *CUSTOM;
        };
        let ty = skiff_kinds::type_of(api_version, kind).expect("a kind of the table is in the schema");
        Self { api_version, kind, schema: skiff_kinds::schema(), ty }
    }

    /// Whether it has a protobuf form.
    pub fn has_protobuf(self) -> bool {
        self.kind != custom::KIND
    }

    /// The canonical form of a tree; `None` when it is no object of this kind.
    pub fn canonical(self, tree: Tree) -> Option<Tree> {
        conform::conform(tree, self.schema, self.ty).ok().map(|(tree, _)| tree)
    }

    /// Two canonical trees are one object, or the input is a finding. An absent struct and an empty one are the same.
    ///
    /// # Panics
    /// When they are not; with both as JSON.
    #[track_caller]
    pub fn same(self, what: &str, left: &Tree, right: &Tree) {
        if left != right {
            same(what, &self.filled(left), &self.filled(right));
        }
    }

    /// With what clients see of fields that were never set.
    pub fn filled(self, tree: &Tree) -> Tree {
        let mut tree = tree.clone();
        conform::fill(&mut tree, self.schema, self.ty);
        tree
    }

    /// Puts the kind's names into a tree, as a decoder of whole bodies does.
    pub fn named(self, mut tree: Tree) -> Tree {
        tree.set(&["apiVersion"], self.api_version);
        tree.set(&["kind"], self.kind);
        tree
    }
}

/// A tree as text, for messages.
pub fn show(tree: &Tree) -> String {
    String::from_utf8_lossy(&json::encode_untyped(tree)).into_owned()
}

/// Two trees are equal, or the input is a finding.
///
/// # Panics
/// When they are not; with both as JSON.
#[track_caller]
pub fn same(what: &str, left: &Tree, right: &Tree) {
    if left == right {
        return;
    }
    let (left, right) = (as_written(left.clone()), as_written(right.clone()));
    if let Some(place) = difference(&left, &right) {
        panic!("{what}: differs at {place}\n left {}\nright {}", show(&left), show(&right));
    }
}

/// Where two trees first differ, and how.
fn difference(left: &Tree, right: &Tree) -> Option<String> {
    match (left, right) {
        (Tree::Map(left), Tree::Map(right)) => {
            let mut keys = left.keys().chain(right.keys()).map(|key| key.as_str());
            keys.find_map(|key| match (left.get(key), right.get(key)) {
                (Some(left), Some(right)) => difference(left, right).map(|place| format!(".{key}{place}")),
                (Some(left), None) => Some(format!(".{key}: {} and nothing", show(left))),
                (None, right) => Some(format!(".{key}: nothing and {}", right.map(show).unwrap_or_default())),
            })
        }
        (Tree::List(left), Tree::List(right)) if left.len() == right.len() => {
            let mut pairs = left.iter().zip(right).enumerate();
            pairs.find_map(|(index, (left, right))| difference(left, right).map(|place| format!("[{index}]{place}")))
        }
        // A large number without a fraction is written like a whole one, and read as one.
        (Tree::Int(whole), Tree::Float(number)) | (Tree::Float(number), Tree::Int(whole))
            if *whole as f64 == *number =>
        {
            None
        }
        _ => (left != right).then(|| format!(": {} and {}", show(left), show(right))),
    }
}

/// Whole numbers without a fraction: `1e3` is a float that is written as an integer, here as upstream.
fn as_written(tree: Tree) -> Tree {
    match tree {
        Tree::Float(number) if number.fract() == 0.0 && number.abs() < i64::MAX as f64 => Tree::Int(number as i64),
        Tree::List(items) => Tree::List(items.into_iter().map(as_written).collect()),
        Tree::Map(map) => Tree::Map(map.into_iter().map(|(key, value)| (key, as_written(value))).collect()),
        other => other,
    }
}
