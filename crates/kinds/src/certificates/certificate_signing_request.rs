//! `certificatesigningrequests` in `certificates.k8s.io/v1`.

use std::borrow::Cow;
use std::collections::HashSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use skiff_object::errors::FieldError;
use skiff_object::path::Path;
use skiff_object::time::{Time, human_duration};
use skiff_object::{Tree, name};

use crate::checks::{self, Found, SPEC};
use crate::facts::Facts;
use crate::kind::Kind;
use crate::table::Column;
use crate::{cells, rules};

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

    fn validate_create(&self, object: &Tree) -> Vec<FieldError> {
        let mut found = Vec::new();
        let spec = checks::spec(object);
        let request = spec.str_at(&["request"]);
        if let Some(why) = malformed_request(request) {
            found.push(FieldError::invalid(SPEC.child("request"), request, why));
        }
        if spec.list_at(&["usages"]).is_empty() {
            found.push(FieldError::required(SPEC.child("usages"), "usages must be provided"));
        }
        checks::each_text(spec, "usages", SPEC, |usage, path| {
            if !USAGES.contains(&usage) {
                found.push(FieldError::not_supported(path, usage, USAGES));
            }
        });
        checks::distinct(&mut found, spec, "usages", SPEC);
        let signer = spec.str_at(&["signerName"]);
        if signer == LEGACY_SIGNER {
            let why = "the legacy signerName is not allowed via this API version";
            found.push(FieldError::invalid(SPEC.child("signerName"), signer, why));
        } else {
            signer_name(&mut found, spec);
        }
        if let Some(seconds) = spec.int_at(&["expirationSeconds"]).filter(|seconds| *seconds < EXPIRATION_SECONDS_MIN) {
            let why = format!("may not specify a duration less than {EXPIRATION_SECONDS_MIN} seconds (10 minutes)");
            found.push(FieldError::invalid(SPEC.child("expirationSeconds"), seconds, why));
        }
        found
    }

    fn validate_subresource(&self, _: &str, new: &Tree, old: &Tree) -> Vec<FieldError> {
        let mut found = Vec::new();
        let has = |object: &Tree, ty: &str| conditions(object).iter().any(|one| one.str_at(&["type"]) == ty);
        for ty in ["Approved", "Denied", "Failed"] {
            if has(old, ty) && !has(new, ty) {
                let why = format!("updates may not remove a condition of type \"{ty}\"");
                found.push(FieldError::forbidden("status.conditions", why));
            }
        }
        judge_conditions(&mut found, new, old);
        let certificate = |object: &Tree| object.str_at(&["status", "certificate"]).to_owned();
        let had = certificate(old);
        if !had.is_empty() && had != certificate(new) {
            let why = "updates may not set certificate content";
            found.push(FieldError::forbidden("status.certificate", why));
        }
        found
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

/// The signer of the first version, which signed anything.
const LEGACY_SIGNER: &str = "kubernetes.io/legacy-unknown";
/// The least time a certificate can be asked for.
const EXPIRATION_SECONDS_MIN: i64 = 600;
/// How long each half of a signer's name may be.
const SIGNER_HALF_BYTES_MAX: usize = 253;

/// What a certificate can be good for.
const USAGES: &[&str] = &[
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

/// What is wrong with a request: it has to be PEM with DER in it. The signer reads the rest.
fn malformed_request(request: &str) -> Option<&'static str> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE REQUEST-----";
    const END: &str = "-----END CERTIFICATE REQUEST-----";
    const WRONG_TYPE: Option<&str> = Some("PEM block type must be CERTIFICATE REQUEST");
    let Ok(bytes) = STANDARD.decode(request) else { return WRONG_TYPE };
    let text = String::from_utf8_lossy(&bytes);
    let Some((_, rest)) = text.split_once(BEGIN) else { return WRONG_TYPE };
    let Some((body, _)) = rest.split_once(END) else { return WRONG_TYPE };
    let body: String = body.split_ascii_whitespace().collect();
    match STANDARD.decode(body) {
        Ok(der) if der.first() == Some(&0x30) => None,
        Ok(_) => Some("asn1: structure error: tags don't match"),
        Err(_) => WRONG_TYPE,
    }
}

/// `example.com/name`: a domain of two segments at least, and a path.
fn signer_name(found: &mut Found, spec: &Tree) {
    let path = SPEC.child("signerName");
    let Some(signer) = checks::required(found, spec, "signerName", SPEC) else { return };
    let halves: Vec<&str> = signer.split('/').collect();
    let [domain, rest] = halves[..] else {
        let why = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        found.push(FieldError::invalid(path, signer, why));
        return;
    };
    if domain.len() > SIGNER_HALF_BYTES_MAX {
        found.push(FieldError::too_long(path, SIGNER_HALF_BYTES_MAX));
    }
    if domain.split('.').count() < 2 {
        let why = "should be a domain with at least two segments separated by dots";
        found.push(FieldError::invalid(path, domain, why));
    }
    for label in domain.split('.') {
        for why in name::dns1123_label(label) {
            let why = format!("validating label {label:?}: {why}");
            found.push(FieldError::invalid(path, domain, why));
        }
    }
    for why in name::dns1123_subdomain(rest) {
        found.push(FieldError::invalid(path, rest, format!("validating path {rest:?}: {why}")));
    }
}

fn judge_conditions(found: &mut Found, new: &Tree, old: &Tree) {
    let status = new.get("status").unwrap_or(&Tree::Null);
    let mut seen = HashSet::new();
    checks::each(status, "conditions", Path::new("status"), |condition, path| {
        let ty = condition.str_at(&["type"]);
        checks::required(found, condition, "type", path);
        if !seen.insert(ty) && conditions(old).iter().filter(|one| one.str_at(&["type"]) == ty).count() < 2 {
            found.push(FieldError::duplicate(path.child("type"), ty));
        }
        if is_decision(condition) && DECISIONS.iter().all(|ty| seen.contains(ty)) {
            let why = "Approved and Denied conditions are mutually exclusive";
            found.push(FieldError::invalid(path.child("type"), ty, why));
        }
        let known: &[&str] =
            if matches!(ty, "Approved" | "Denied" | "Failed") { &["True"] } else { &["False", "True", "Unknown"] };
        checks::one_of(found, condition, "status", path, known);
    });
}
