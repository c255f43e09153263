//! `certificatesigningrequests` in `certificates.k8s.io/v1`.

use std::borrow::Cow;

use skiff_object::Tree;
use skiff_object::errors::FieldError;
use skiff_object::time::{Time, human_duration};

use crate::cells;
use crate::facts::Facts;
use crate::kind::Kind;
use crate::rules;
use crate::table::Column;

/// A wish for a certificate.
pub(crate) struct CertificateSigningRequest(pub(crate) Facts);

impl Kind for CertificateSigningRequest {
    fn facts(&self) -> &Facts {
        &self.0
    }

    /// The request is what was asked for and by whom: only metadata changes.
    fn prepare_update(&self, new: &mut Tree, old: &Tree) {
        rules::prepare_update(&self.0, self.generation(), new, old);
        rules::keep(new, old, &["spec"]);
    }

    /// `approval` decides, `status` does everything else.
    fn prepare_subresource(&self, subresource: &str, new: &mut Tree, old: &Tree) {
        let approves = subresource == "approval";
        let decided = if approves { &*new } else { old };
        let told = if approves { old } else { &*new };
        let conditions: Vec<Tree> = conditions(decided)
            .iter()
            .filter(|one| is_decision(one))
            .chain(conditions(told).iter().filter(|one| !is_decision(one)))
            .cloned()
            .collect();
        rules::prepare_subresource("status", new, old);
        if approves {
            rules::keep(new, old, &["status"]);
        }
        if conditions.is_empty() {
            new.unset(&["status", "conditions"]);
        } else {
            new.set(&["status", "conditions"], conditions);
        }
    }

    fn validate_subresource(&self, _: &str, new: &Tree, old: &Tree) -> Vec<FieldError> {
        let mut found = Vec::new();
        let has = |object: &Tree, ty: &str| conditions(object).iter().any(|one| one.str_at(&["type"]) == ty);
        let path = "status.conditions";
        for ty in DECISIONS {
            if has(old, ty) && !has(new, ty) {
                found.push(FieldError::forbidden(path, format!("updates may not remove a condition of type \"{ty}\"")));
            }
        }
        if DECISIONS.iter().all(|ty| has(new, ty)) {
            let detail = "Approved and Denied conditions are mutually exclusive";
            found.push(FieldError::invalid(path, "Denied", detail));
        }
        found
    }

    fn columns(&self) -> Cow<'_, [Column]> {
        Cow::Borrowed(COLUMNS)
    }

    fn row(&self, object: &Tree, now: Time) -> Vec<Tree> {
        let duration = object
            .int_at(&["spec", "expirationSeconds"])
            .map_or_else(|| "<none>".to_owned(), |seconds| human_duration(seconds.saturating_mul(1_000_000_000)));
        let has = |ty: &str| conditions(object).iter().any(|one| one.str_at(&["type"]) == ty);
        let mut condition = match (has("Denied"), has("Approved")) {
            (true, _) => "Denied",
            (_, true) => "Approved",
            _ => "Pending",
        }
        .to_owned();
        if has("Failed") {
            condition.push_str(",Failed");
        }
        if !object.str_at(&["status", "certificate"]).is_empty() {
            condition.push_str(",Issued");
        }
        vec![
            cells::name(object),
            cells::age(object, now),
            cells::text_or(object, &["spec", "signerName"], "<none>"),
            cells::text(object, &["spec", "username"]),
            duration.into(),
            condition.into(),
        ]
    }
}

/// The conditions that only `approval` sets.
const DECISIONS: [&str; 2] = ["Approved", "Denied"];

fn conditions(object: &Tree) -> &[Tree] {
    object.list_at(&["status", "conditions"])
}

fn is_decision(condition: &Tree) -> bool {
    DECISIONS.contains(&condition.str_at(&["type"]))
}

const COLUMNS: &[Column] = &[
    Column::name(),
    cells::AGE,
    Column::new("SignerName", "string", "Who is asked to sign."),
    Column::new("Requestor", "string", "Who asks."),
    Column::new("RequestedDuration", "string", "For how long."),
    Column::new("Condition", "string", "What became of it."),
];
