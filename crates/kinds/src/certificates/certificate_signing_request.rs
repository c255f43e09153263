//! `certificatesigningrequests` in `certificates.k8s.io/v1`.

use std::borrow::Cow;

use skiff_object::Tree;
use skiff_object::time::{Time, human_duration};

use crate::cells;
use crate::facts::Facts;
use crate::kind::Kind;
use crate::table::Column;

/// A wish for a certificate.
pub(crate) struct CertificateSigningRequest(pub(crate) Facts);

impl Kind for CertificateSigningRequest {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn columns(&self) -> Cow<'_, [Column]> {
        Cow::Borrowed(COLUMNS)
    }

    fn row(&self, object: &Tree, now: Time) -> Vec<Tree> {
        let duration = object
            .int_at(&["spec", "expirationSeconds"])
            .map_or_else(|| "<none>".to_owned(), |seconds| human_duration(seconds.saturating_mul(1_000_000_000)));
        let has = |ty: &str| object.list_at(&["status", "conditions"]).iter().any(|one| one.str_at(&["type"]) == ty);
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

const COLUMNS: &[Column] = &[
    Column::name(),
    cells::AGE,
    Column::new("SignerName", "string", "Who is asked to sign."),
    Column::new("Requestor", "string", "Who asks."),
    Column::new("RequestedDuration", "string", "For how long."),
    Column::new("Condition", "string", "What became of it."),
];
