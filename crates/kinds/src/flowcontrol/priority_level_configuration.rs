//! `prioritylevelconfigurations` in `flowcontrol.apiserver.k8s.io/v1`.

use std::borrow::Cow;

use skiff_object::Tree;
use skiff_object::errors::FieldError;
use skiff_object::path::Path;
use skiff_object::time::Time;

use crate::checks::{self, Found, SPEC};
use crate::facts::Facts;
use crate::kind::{Generation, Kind};
use crate::table::Column;
use crate::{cells, fill};

/// How many requests of a level run at once.
pub(crate) struct PriorityLevelConfiguration(pub(crate) Facts);

impl Kind for PriorityLevelConfiguration {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn generation(&self) -> Generation {
        Generation::Spec
    }

    fn default(&self, object: &mut Tree) {
        let spec = fill::within(object, "spec");
        if spec.str_at(&["type"]) == "Exempt" {
            let exempt = fill::within(spec, "exempt");
            fill::absent(exempt, "nominalConcurrencyShares", 0);
            fill::absent(exempt, "lendablePercent", 0);
        }
        fill::each(spec, &["limited"], |limited| {
            fill::absent(limited, "nominalConcurrencyShares", 30);
            fill::absent(limited, "lendablePercent", 0);
            fill::each(limited, &["limitResponse", "queuing"], |queuing| {
                fill::number(queuing, "queues", 64);
                fill::number(queuing, "handSize", 8);
                fill::number(queuing, "queueLengthLimit", 50);
            });
        });
    }

    fn columns(&self) -> Cow<'_, [Column]> {
        Cow::Borrowed(COLUMNS)
    }

    fn row(&self, object: &Tree, now: Time) -> Vec<Tree> {
        let value = |path: &[&str]| {
            object.at(path).filter(|value| !value.is_null()).cloned().unwrap_or_else(|| "<none>".into())
        };
        let queue = |field: &str| value(&["spec", "limited", "limitResponse", "queuing", field]);
        let section = if object.str_at(&["spec", "type"]) == "Exempt" { "exempt" } else { "limited" };
        vec![
            cells::name(object),
            cells::text(object, &["spec", "type"]),
            value(&["spec", section, "nominalConcurrencyShares"]),
            queue("queues"),
            queue("handSize"),
            queue("queueLengthLimit"),
            cells::age(object, now),
        ]
    }

    fn validate_create(&self, object: &Tree) -> Vec<FieldError> {
        let mut found = Vec::new();
        let spec = checks::spec(object);
        let ty = spec.str_at(&["type"]);
        if (object.str_at(&["metadata", "name"]) == "exempt") != (ty == "Exempt") {
            let why = "type must be 'Exempt' if and only if `name` is 'exempt'";
            found.push(FieldError::invalid(SPEC.child("type"), ty, why));
        }
        let [limited, exempt] = ["limited", "exempt"].map(|field| checks::given(spec, field));
        match ty {
            "Exempt" => {
                if limited.is_some() {
                    let why = "must be nil if the type is not Limited";
                    found.push(FieldError::forbidden(SPEC.child("limited"), why));
                }
                if let Some(exempt) = exempt {
                    shares(&mut found, exempt, SPEC.child("exempt"));
                }
            }
            "Limited" => {
                if exempt.is_some() {
                    let why = "must be nil if the type is Limited";
                    found.push(FieldError::forbidden(SPEC.child("exempt"), why));
                }
                match limited {
                    None => {
                        let why = "must not be empty when type is Limited";
                        found.push(FieldError::required(SPEC.child("limited"), why));
                    }
                    Some(limited) => self::limited(&mut found, limited, SPEC.child("limited")),
                }
            }
            _ => checks::only(&mut found, spec, "type", SPEC, &["Exempt", "Limited"]),
        }
        found
    }

    fn validate_update(&self, new: &Tree, _old: &Tree) -> Vec<FieldError> {
        self.validate_create(new)
    }

    fn validate_subresource(&self, _: &str, new: &Tree, _old: &Tree) -> Vec<FieldError> {
        let mut found = Vec::new();
        super::flow_schema::condition_types(&mut found, new);
        found
    }
}

const COLUMNS: &[Column] = &[
    Column::name(),
    Column::new("Type", "string", "Whether it is limited."),
    Column::new("NominalConcurrencyShares", "string", "Its share of the seats."),
    Column::new("Queues", "string", "How many queues there are."),
    Column::new("HandSize", "string", "How many queues a flow is dealt."),
    Column::new("QueueLengthLimit", "string", "How many requests wait in a queue."),
    cells::AGE,
];

/// How many queues there may be.
const QUEUES_MAX: i64 = 10_000_000;
/// How many bits of a hash dealing queues may take.
const ENTROPY_BITS_MAX: i64 = 60;

fn shares(found: &mut Found, level: &Tree, path: Path<'_>) {
    let range = |field: &str| level.int_at(&[field]);
    if let Some(shares) = range("nominalConcurrencyShares").filter(|shares| *shares < 0) {
        let why = "must be a non-negative integer";
        found.push(FieldError::invalid(path.child("nominalConcurrencyShares"), shares, why));
    }
    if let Some(percent) = range("lendablePercent").filter(|percent| !(0..=100).contains(percent)) {
        let why = "must be between 0 and 100, inclusive";
        found.push(FieldError::invalid(path.child("lendablePercent"), percent, why));
    }
}

fn limited(found: &mut Found, limited: &Tree, path: Path<'_>) {
    shares(found, limited, path);
    if let Some(percent) = limited.int_at(&["borrowingLimitPercent"]).filter(|percent| *percent < 0) {
        let why = "if specified, must be a non-negative integer";
        found.push(FieldError::invalid(path.child("borrowingLimitPercent"), percent, why));
    }
    let response = limited.get("limitResponse").unwrap_or(&Tree::Null);
    let path = path.child("limitResponse");
    match (response.str_at(&["type"]), checks::given(response, "queuing")) {
        ("Reject", Some(_)) => {
            let why = "must be nil if limited.limitResponse.type is not Limited";
            found.push(FieldError::forbidden(path.child("queuing"), why));
        }
        ("Reject", None) => {}
        ("Queue", None) => {
            let why = "must not be empty if limited.limitResponse.type is Limited";
            found.push(FieldError::required(path.child("queuing"), why));
        }
        ("Queue", Some(queuing)) => self::queuing(found, queuing, path.child("queuing")),
        _ => checks::only(found, response, "type", path, &["Queue", "Reject"]),
    }
}

fn queuing(found: &mut Found, queuing: &Tree, path: Path<'_>) {
    let [length, queues, hand] =
        ["queueLengthLimit", "queues", "handSize"].map(|field| queuing.int_at(&[field]).unwrap_or(0));
    for (field, value) in [("queueLengthLimit", length), ("queues", queues), ("handSize", hand)] {
        if value <= 0 {
            found.push(FieldError::invalid(path.child(field), value, "must be positive"));
        }
    }
    if queues > QUEUES_MAX {
        let why = format!("must not be greater than {QUEUES_MAX}");
        found.push(FieldError::invalid(path.child("queues"), queues, why));
    }
    let hand_path = path.child("handSize");
    if hand > queues {
        let why = format!("should not be greater than queues ({queues})");
        found.push(FieldError::invalid(hand_path, hand, why));
    } else if entropy_bits(queues, hand) > ENTROPY_BITS_MAX {
        let why = format!(
            "required entropy bits of deckSize {queues} and handSize {hand} should not be greater than \
             {ENTROPY_BITS_MAX}"
        );
        found.push(FieldError::invalid(hand_path, hand, why));
    }
}

/// How many bits it takes to draw `hand` different queues of `queues`; counts no further than it matters.
fn entropy_bits(queues: i64, hand: i64) -> i64 {
    let mut bits = 0.0;
    for drawn in 0..hand {
        bits += ((queues - drawn).max(1) as f64).log2();
        if bits > ENTROPY_BITS_MAX as f64 {
            break;
        }
    }
    bits.ceil() as i64
}
