//! Cells that many tables share: ages, selectors, containers.

use skiff_object::selector::label::Selector;
use skiff_object::time::{Time, human_duration};
use skiff_object::{Map, Tree};

use crate::table::Column;

pub(crate) const AGE: Column = Column::new("Age", "string", "How long ago the object was created.");
pub(crate) const CONTAINERS: Column = Column::wide("Containers", "string", "The containers of the template.");
pub(crate) const IMAGES: Column = Column::wide("Images", "string", "The images of the template's containers.");
pub(crate) const SELECTOR: Column = Column::wide("Selector", "string", "The labels of the pods that are meant.");

/// The object's name.
pub(crate) fn name(object: &Tree) -> Tree {
    object.str_at(&["metadata", "name"]).into()
}

/// The time since the object was created.
pub(crate) fn age(object: &Tree, now: Time) -> Tree {
    since(object.str_at(&["metadata", "creationTimestamp"]), now).into()
}

/// The time since a moment; `<unknown>` when there is none.
pub(crate) fn since(text: &str, now: Time) -> String {
    match Time::parse(text) {
        Ok(time) => human_duration(now.to_nanos().saturating_sub(time.to_nanos())),
        Err(_) => "<unknown>".to_owned(),
    }
}

/// The text at a path.
pub(crate) fn text(object: &Tree, path: &[&str]) -> Tree {
    object.str_at(path).into()
}

/// The text at a path, or `otherwise` where there is none.
pub(crate) fn text_or(object: &Tree, path: &[&str], otherwise: &str) -> Tree {
    match object.str_at(path) {
        "" => otherwise.into(),
        text => text.into(),
    }
}

/// The number at a path, zero where there is none.
pub(crate) fn number(object: &Tree, path: &[&str]) -> Tree {
    count(object, path).into()
}

/// As [`number`], to calculate with.
pub(crate) fn count(object: &Tree, path: &[&str]) -> i64 {
    object.int_at(path).unwrap_or(0)
}

/// How many items or entries there are at a path.
pub(crate) fn size(object: &Tree, path: &[&str]) -> Tree {
    let size = match object.at(path) {
        Some(Tree::List(items)) => items.len(),
        Some(Tree::Map(map)) => map.len(),
        _ => 0,
    };
    (size as i64).into()
}

/// A scalar as text.
pub(crate) fn scalar(tree: Option<&Tree>) -> Option<String> {
    match tree? {
        Tree::Str(text) => Some(text.to_string()),
        Tree::Int(number) => Some(number.to_string()),
        Tree::Bool(value) => Some(value.to_string()),
        _ => None,
    }
}

/// A `LabelSelector` as text, `<none>` when it is empty.
pub(crate) fn selector(object: &Tree, path: &[&str]) -> Tree {
    match Selector::from_object(object.at(path)) {
        Ok(selector) if selector.requirements().is_empty() => "<none>".into(),
        Ok(selector) => selector.to_string().into(),
        Err(_) => "<error>".into(),
    }
}

/// Labels as text, ordered; `<none>` when there are none.
pub(crate) fn labels(object: &Tree, path: &[&str]) -> Tree {
    let labels = Selector::from_set(object.at(path)).to_string();
    if labels.is_empty() { "<none>".into() } else { labels.into() }
}

/// Names and images of the containers of a pod spec.
pub(crate) fn containers(object: &Tree, spec: &[&str]) -> [Tree; 2] {
    let containers = object.at(spec).map_or(&[][..], |spec| spec.list_at(&["containers"]));
    ["name", "image"].map(|field| {
        let all: Vec<&str> = containers.iter().map(|container| container.str_at(&[field])).collect();
        all.join(",").into()
    })
}

/// At most `shown` of the items, and how many more there are.
pub(crate) fn some_of(items: Vec<String>, shown: usize, separator: &str) -> String {
    let more = items.len().saturating_sub(shown);
    let text = items.into_iter().take(shown).collect::<Vec<_>>().join(separator);
    if more > 0 { format!("{text} + {more} more...") } else { text }
}

/// `RWO,RWX`: access modes in a fixed order, each once.
pub(crate) fn access_modes(object: &Tree, path: &[&str]) -> Tree {
    let has = |mode: &str| object.list_at(path).iter().any(|one| one.as_str() == Some(mode));
    let short =
        [("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")];
    let modes: Vec<&str> = short.iter().filter(|(mode, _)| has(mode)).map(|(_, short)| *short).collect();
    modes.join(",").into()
}

/// The addresses of a load balancer, ordered.
pub(crate) fn load_balancer(object: &Tree) -> Vec<String> {
    let mut addresses: Vec<String> = object
        .list_at(&["status", "loadBalancer", "ingress"])
        .iter()
        .map(|one| match one.str_at(&["ip"]) {
            "" => one.str_at(&["hostname"]).to_owned(),
            ip => ip.to_owned(),
        })
        .filter(|address| !address.is_empty())
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

/// Whether the condition `ty` stands in `status.conditions` with status `True`.
pub(crate) fn has_condition(object: &Tree, ty: &str) -> bool {
    let conditions = object.list_at(&["status", "conditions"]);
    conditions.iter().any(|one| one.str_at(&["type"]) == ty && one.str_at(&["status"]) == "True")
}

/// Whether the object is being deleted.
pub(crate) fn is_deleting(object: &Tree) -> bool {
    !object.str_at(&["metadata", "deletionTimestamp"]).is_empty()
}

/// The columns of role bindings.
pub(crate) const BINDING_COLUMNS: &[Column] = &[
    Column::name(),
    Column::new("Role", "string", "The role that is granted."),
    AGE,
    Column::wide("Users", "string", "The users it is granted to."),
    Column::wide("Groups", "string", "The groups it is granted to."),
    Column::wide("ServiceAccounts", "string", "The service accounts it is granted to."),
];

/// The row of a role binding.
pub(crate) fn binding(object: &Tree, now: Time) -> Vec<Tree> {
    let of = |kind: &str| -> Tree {
        let subjects = object.list_at(&["subjects"]).iter().filter(|subject| subject.str_at(&["kind"]) == kind);
        let names: Vec<String> = subjects
            .map(|subject| match (kind, subject.str_at(&["namespace"]), subject.str_at(&["name"])) {
                ("ServiceAccount", namespace, name) => format!("{namespace}/{name}"),
                (_, _, name) => name.to_owned(),
            })
            .collect();
        names.join(", ").into()
    };
    let role = format!("{}/{}", object.str_at(&["roleRef", "kind"]), object.str_at(&["roleRef", "name"]));
    vec![name(object), role.into(), age(object, now), of("User"), of("Group"), of("ServiceAccount")]
}

/// `apiVersion/kind` of the parameters of an admission policy.
pub(crate) fn param_kind(object: &Tree) -> Tree {
    match object.at(&["spec", "paramKind"]) {
        Some(kind @ Tree::Map(_)) => format!("{}/{}", kind.str_at(&["apiVersion"]), kind.str_at(&["kind"])).into(),
        _ => "<unset>".into(),
    }
}

/// The parameters an admission policy is bound to.
pub(crate) fn param_ref(object: &Tree) -> Tree {
    match object.at(&["spec", "paramRef"]) {
        Some(param @ Tree::Map(_)) => match (param.str_at(&["namespace"]), param.str_at(&["name"])) {
            (_, "") => "*".into(),
            ("", name) => format!("*/{name}").into(),
            (namespace, name) => format!("{namespace}/{name}").into(),
        },
        _ => "<unset>".into(),
    }
}

/// `request: used/hard` of a quota, limits apart.
pub(crate) fn quota(object: &Tree, limits: bool) -> Tree {
    let mut hard: Vec<(&str, &str)> = object
        .at(&["status", "hard"])
        .and_then(Tree::as_map)
        .into_iter()
        .flat_map(Map::iter)
        .map(|(name, amount)| (name.as_str(), amount.as_str().unwrap_or("")))
        .filter(|(name, _)| name.starts_with("limits.") == limits)
        .collect();
    hard.sort_unstable();
    let used = |name: &str| match object.str_at(&["status", "used", name]) {
        "" => "0".to_owned(),
        used => used.to_owned(),
    };
    let parts: Vec<String> = hard.into_iter().map(|(name, hard)| format!("{name}: {}/{hard}", used(name))).collect();
    parts.join(", ").into()
}

/// The columns of events.
pub(crate) const EVENT_COLUMNS: &[Column] = &[
    Column::new("Last Seen", "string", "When it last happened."),
    Column::new("Type", "string", "Whether it is normal or a warning."),
    Column::new("Reason", "string", "Why, in a word."),
    Column::new("Object", "string", "What it happened to."),
    Column::wide("Subobject", "string", "Which part of that."),
    Column::wide("Source", "string", "Who says so."),
    Column::new("Message", "string", "What happened."),
    Column::wide("First Seen", "string", "When it first happened."),
    Column::wide("Count", "integer", "How often it happened."),
    Column::wide_name(),
];

/// What the two versions of events call their fields.
pub(crate) struct EventFields {
    pub(crate) object: &'static str,
    pub(crate) message: &'static str,
    pub(crate) component: &'static str,
    pub(crate) source: &'static str,
    pub(crate) first: &'static str,
    pub(crate) last: &'static str,
    pub(crate) count: &'static str,
}

/// The row of an event.
pub(crate) fn event(object: &Tree, fields: &EventFields, now: Time) -> Vec<Tree> {
    let first = match object.str_at(&[fields.first]) {
        "" => object.str_at(&["eventTime"]),
        first => first,
    };
    let (last, times) = match object.get("series") {
        Some(series @ Tree::Map(_)) => (series.str_at(&["lastObservedTime"]), count(series, &["count"])),
        _ => (object.str_at(&[fields.last]), count(object, &[fields.count]).max(1)),
    };
    let last = if last.is_empty() { first } else { last };
    let kind = object.str_at(&[fields.object, "kind"]).to_lowercase();
    let target = match object.str_at(&[fields.object, "name"]) {
        "" => kind,
        name => format!("{kind}/{name}"),
    };
    let source = match object.str_at(&[fields.source, "component"]) {
        "" => object.str_at(&[fields.component]),
        component => component,
    };
    let host = match object.str_at(&[fields.source, "host"]) {
        "" => object.str_at(&["reportingInstance"]),
        host => host,
    };
    let comma = if host.is_empty() { "" } else { ", " };
    vec![
        since(last, now).into(),
        text(object, &["type"]),
        text(object, &["reason"]),
        target.into(),
        text(object, &[fields.object, "fieldPath"]),
        format!("{source}{comma}{host}").into(),
        object.str_at(&[fields.message]).trim().into(),
        since(first, now).into(),
        times.into(),
        name(object),
    ]
}
