//! `spec` of a definition: group, scope, names, versions, subresources, columns, selectable fields, conversion.

use skiff_object::errors::{BadValue, FieldError};
use skiff_object::{Tree, name};

use super::{defaulted, schema, status, structural};
use crate::custom::node::Node;

type Found = Vec<FieldError>;

/// As many selectable fields as upstream allows.
const SELECTABLE_FIELDS_MAX: usize = 8;

/// What an old definition already did is not held against a new one.
pub(super) struct Tolerance {
    pub(super) no_schema: bool,
    pub(super) non_structural: bool,
    pub(super) unpruned_defaults: bool,
    pub(super) list_types: bool,
}

impl Tolerance {
    fn of(old: Option<&Tree>) -> Self {
        let schemas = || {
            let versions = old.map_or(&[][..], |old| old.list_at(&["versions"])).iter();
            versions.filter_map(|version| version.at(&["schema", "openAPIV3Schema"]))
        };
        let has = |test: &dyn Fn(&Tree) -> bool| schemas().any(test);
        Self {
            no_schema: old.is_some_and(|old| old.list_at(&["versions"]).len() != schemas().count()),
            non_structural: has(&|schema| !structural::validate(schema, "").is_empty()),
            unpruned_defaults: has(&|schema| defaulted::has_unpruned(schema)),
            list_types: has(&schema::has_loose_lists),
        }
    }
}

pub(super) fn validate(spec: &Tree, old: Option<&Tree>, old_definition: Option<&Tree>, found: &mut Found) {
    group_and_scope(spec, found);
    let tolerance = Tolerance::of(old);
    let versions = spec.list_at(&["versions"]);
    if !tolerance.no_schema {
        for (index, version) in versions.iter().enumerate() {
            if version.at(&["schema", "openAPIV3Schema"]).is_none_or(Tree::is_null) {
                found.push(FieldError::required(format!("spec.versions[{index}].schema.openAPIV3Schema"), ""));
            }
        }
    }
    let common = Common::of(versions);
    for (index, version) in versions.iter().enumerate() {
        let path = format!("spec.versions[{index}]");
        let text = version.str_at(&["name"]);
        let wrong = name::dns1035_label(text);
        if !wrong.is_empty() {
            found.push(FieldError::invalid(format!("{path}.name"), text, wrong.join(",")));
        }
        deprecation(version, &path, found);
        let before = old.and_then(|old| version_named(old, text));
        parts(version, before, &path, &common, false, &tolerance, found);
    }
    if let Some(first) = versions.first() {
        let before = old.and_then(|old| version_named(old, first.str_at(&["name"])));
        parts(first, before, "spec", &common, true, &tolerance, found);
    }
    version_set(spec, versions, found);
    for field in ["plural", "singular", "kind", "listKind"] {
        if spec.str_at(&["names", field]).is_empty() {
            found.push(FieldError::required(format!("spec.names.{field}"), ""));
        }
    }
    names(spec.get("names").unwrap_or(&Tree::Null), "spec.names", found);
    let established = old_definition.is_some_and(|old| status::is_true(old, "Established"));
    conversion(spec, old, established, found);
    if let Some(old) = old {
        immutable(spec, old, established, found);
    }
}

fn version_named<'a>(spec: &'a Tree, name: &str) -> Option<&'a Tree> {
    spec.list_at(&["versions"]).iter().find(|version| version.str_at(&["name"]) == name)
}

/// Which parts all versions share: upstream reports those with the definition as a whole.
struct Common {
    schema: bool,
    subresources: bool,
    columns: bool,
    selectable: bool,
}

impl Common {
    fn of(versions: &[Tree]) -> Self {
        let same = |field: &str| {
            let first = versions.first().and_then(|version| version.get(field));
            versions.iter().all(|version| crate::rules::same(version.get(field), first))
        };
        Self {
            schema: same("schema"),
            subresources: same("subresources"),
            columns: same("additionalPrinterColumns"),
            selectable: same("selectableFields"),
        }
    }
}

/// The parts of a version that are (`shared`) or are not common to all.
fn parts(
    version: &Tree,
    before: Option<&Tree>,
    path: &str,
    common: &Common,
    shared: bool,
    tolerance: &Tolerance,
    found: &mut Found,
) {
    let schema = version.at(&["schema", "openAPIV3Schema"]).filter(|schema| !schema.is_null());
    if common.schema == shared
        && let Some(schema) = schema
    {
        let field = if shared { "validation" } else { "schema" };
        let status = version.at(&["subresources", "status"]).is_some_and(|status| !status.is_null());
        let unchanged = before.is_some_and(|before| before.at(&["schema", "openAPIV3Schema"]) == Some(schema));
        schema::validate(schema, &format!("{path}.{field}"), status, unchanged, tolerance, found);
    }
    if common.subresources == shared {
        subresources(version, &format!("{path}.subresources"), found);
    }
    if common.columns == shared {
        for (index, column) in version.list_at(&["additionalPrinterColumns"]).iter().enumerate() {
            printer_column(column, &format!("{path}.additionalPrinterColumns[{index}]"), found);
        }
    }
    let fields = version.list_at(&["selectableFields"]);
    if common.selectable == shared && !fields.is_empty() {
        let path = format!("{path}.selectableFields");
        match schema {
            None => {
                let why = if shared {
                    "may only be set when validations.schema is included"
                } else {
                    "may only be set when `version.schema.openAPIV3Schema` is not included"
                };
                found.push(FieldError::invalid(path, "", why));
            }
            Some(schema) => selectable(fields, before, schema, &path, found),
        }
    }
}

fn group_and_scope(spec: &Tree, found: &mut Found) {
    let group = spec.str_at(&["group"]);
    let wrong = name::dns1123_subdomain(group);
    if group.is_empty() {
        found.push(FieldError::required("spec.group", ""));
    } else if !wrong.is_empty() {
        found.push(FieldError::invalid("spec.group", group, wrong.join(",")));
    } else if !group.contains('.') {
        found.push(FieldError::invalid("spec.group", group, "should be a domain with at least one dot"));
    }
    one_of(spec.str_at(&["scope"]), "spec.scope", &["Cluster", "Namespaced"], found);
}

fn one_of(text: &str, path: &str, known: &[&str], found: &mut Found) {
    if text.is_empty() {
        found.push(FieldError::required(path, ""));
    } else if !known.contains(&text) {
        found.push(FieldError::not_supported(path, text, known));
    }
}

fn version_set(spec: &Tree, versions: &[Tree], found: &mut Found) {
    let shown = || BadValue::from(spec.get("versions"));
    let mut names = std::collections::HashSet::new();
    if !versions.iter().all(|version| names.insert(version.str_at(&["name"]))) {
        found.push(FieldError::invalid("spec.versions", shown(), "must contain unique version names"));
    }
    if versions.iter().filter(|version| version.bool_at(&["storage"]) == Some(true)).count() != 1 {
        let why = "must have exactly one version marked as storage version";
        found.push(FieldError::invalid("spec.versions", shown(), why));
    }
}

fn deprecation(version: &Tree, path: &str, found: &mut Found) {
    let Some(Tree::Str(text)) = version.get("deprecationWarning") else { return };
    let field = format!("{path}.deprecationWarning");
    let mut wrong = |why: String| found.push(FieldError::invalid(&field, &**text, why));
    if version.bool_at(&["deprecated"]) != Some(true) {
        return wrong("can only be set for deprecated versions".into());
    }
    if text.len() > 256 {
        wrong("must be <= 256 characters long".into());
    }
    if text.is_empty() {
        wrong("must not be an empty string".into());
    }
    if let Some((index, _)) = text.char_indices().find(|(_, c)| c.is_control()) {
        wrong(format!("must only contain printable UTF-8 characters; non-printable character found at index {index}"));
    }
}

/// The names of a resource, asked for or accepted.
pub(super) fn names(names: &Tree, path: &str, found: &mut Found) {
    let mut label = |text: &str, path: String, prefix: &str| {
        let wrong = name::dns1035_label(&if prefix.is_empty() { text.to_owned() } else { text.to_lowercase() });
        if !wrong.is_empty() {
            found.push(FieldError::invalid(path, text, format!("{prefix}{}", wrong.join(","))));
        }
    };
    const MIXED: &str = "may have mixed case, but should otherwise match: ";
    for (field, prefix) in [("plural", ""), ("singular", ""), ("kind", MIXED), ("listKind", MIXED)] {
        let text = names.str_at(&[field]);
        if !text.is_empty() {
            label(text, format!("{path}.{field}"), prefix);
        }
    }
    for list in ["shortNames", "categories"] {
        for (index, text) in names.list_at(&[list]).iter().enumerate() {
            label(text.as_str().unwrap_or(""), format!("{path}.{list}[{index}]"), "");
        }
    }
    let (kind, list_kind) = (names.str_at(&["kind"]), names.str_at(&["listKind"]));
    if !kind.is_empty() && kind == list_kind {
        let why = "kind and listKind may not be the same";
        found.push(FieldError::invalid(format!("{path}.listKind"), list_kind, why));
    }
}

fn subresources(version: &Tree, path: &str, found: &mut Found) {
    let Some(scale) = version.at(&["subresources", "scale"]).filter(|scale| !scale.is_null()) else { return };
    for (field, parents, words, required) in [
        ("specReplicasPath", &[".spec."][..], ".spec", true),
        ("statusReplicasPath", &[".status."], ".status", true),
        ("labelSelectorPath", &[".spec.", ".status."], "either .spec or .status", false),
    ] {
        let text = scale.str_at(&[field]);
        let field = format!("{path}.scale.{field}");
        if text.is_empty() {
            if required {
                found.push(FieldError::required(field, ""));
            }
        } else if !text.starts_with('.') {
            found.push(FieldError::invalid(field, text, "must be a simple json path starting with ."));
        } else if !parents.iter().any(|parent| text.starts_with(parent)) {
            found.push(FieldError::invalid(field, text, format!("should be a json path under {words}")));
        }
    }
}

fn printer_column(column: &Tree, path: &str, found: &mut Found) {
    const TYPES: &str = "must be one of boolean,date,integer,number,string";
    const FORMATS: [&str; 8] = ["int32", "int64", "float", "double", "byte", "date", "date-time", "password"];
    if column.str_at(&["name"]).is_empty() {
        found.push(FieldError::required(format!("{path}.name"), ""));
    }
    match column.str_at(&["type"]) {
        "" => found.push(FieldError::required(format!("{path}.type"), TYPES)),
        "boolean" | "date" | "integer" | "number" | "string" => {}
        other => found.push(FieldError::invalid(format!("{path}.type"), other, TYPES)),
    }
    let format = column.str_at(&["format"]);
    if !format.is_empty() && !FORMATS.contains(&format) {
        let why = "must be one of byte,date,date-time,double,float,int32,int64,password";
        found.push(FieldError::invalid(format!("{path}.format"), format, why));
    }
    // Upstream's path is the Go name of the field.
    let field = format!("{path}.JSONPath");
    match column.str_at(&["jsonPath"]) {
        "" => found.push(FieldError::required(field, "")),
        text if !text.starts_with('.') => {
            found.push(FieldError::invalid(field, text, "must be a simple json path starting with ."));
        }
        _ => {}
    }
}

fn selectable(fields: &[Tree], before: Option<&Tree>, schema: &Tree, path: &str, found: &mut Found) {
    let node = Node::compile(schema);
    let mut unique = std::collections::BTreeSet::new();
    for (index, field) in fields.iter().enumerate() {
        let text = field.str_at(&["jsonPath"]);
        let path = format!("{path}[{index}].jsonPath");
        if text.is_empty() {
            found.push(FieldError::required(path, ""));
            continue;
        }
        let target = match schema::field_at(&node, text, schema::Arrays::Forbidden) {
            Ok(target) => target,
            Err(why) => {
                found.push(FieldError::invalid(path, text, format!("is an invalid path: {why}")));
                continue;
            }
        };
        if text.split('.').nth(1) == Some("metadata") {
            found.push(FieldError::invalid(&path, text, "must not point to fields in metadata"));
        }
        use crate::custom::node::Type;
        if !target.is_some_and(|node| matches!(node.ty, Type::String | Type::Boolean | Type::Integer)) {
            let why = "must point to a field of type string, boolean or integer. Enum string fields and strings with \
                       formats are allowed.";
            found.push(FieldError::invalid(&path, text, why));
        }
        if !unique.insert(text) {
            found.push(FieldError::duplicate(path, text));
        }
    }
    let kept = before.is_some_and(|before| before.list_at(&["selectableFields"]) == fields);
    if unique.len() > SELECTABLE_FIELDS_MAX && !kept {
        found.push(FieldError::too_many(path, unique.len(), SELECTABLE_FIELDS_MAX));
    }
}

fn conversion(spec: &Tree, old: Option<&Tree>, established: bool, found: &mut Found) {
    let Some(conversion) = spec.get("conversion").filter(|conversion| !conversion.is_null()) else { return };
    const PATH: &str = "spec.conversion";
    // Paths below are those of upstream's internal form, where the webhook's parts stand directly in conversion.
    const CONFIG: &str = "spec.conversion.webhookClientConfig";
    const VERSIONS: &str = "spec.conversion.conversionReviewVersions";
    one_of(conversion.str_at(&["strategy"]), "spec.conversion.strategy", &["None", "Webhook"], found);
    let webhook = conversion.get("webhook").filter(|webhook| !webhook.is_null());
    let config = webhook.and_then(|webhook| webhook.get("clientConfig")).filter(|config| !config.is_null());
    let versions = webhook.map_or(&[][..], |webhook| webhook.list_at(&["conversionReviewVersions"]));
    if conversion.str_at(&["strategy"]) != "Webhook" {
        let why = "should not be set when strategy is not set to Webhook";
        if config.is_some() {
            found.push(FieldError::forbidden(CONFIG, why));
        }
        if !versions.is_empty() {
            found.push(FieldError::forbidden(VERSIONS, why));
        }
        return;
    }
    if spec.bool_at(&["preserveUnknownFields"]) == Some(true) {
        let why = "must be None if spec.preserveUnknownFields is true";
        found.push(FieldError::invalid(format!("{PATH}.strategy"), "Webhook", why));
    }
    match config {
        None => found.push(FieldError::required(CONFIG, "required when strategy is set to Webhook")),
        Some(config) => client_config(config, established, found),
    }
    review_versions(versions, old, found);
}

fn client_config(config: &Tree, established: bool, found: &mut Found) {
    const PATH: &str = "spec.conversion.webhookClientConfig";
    let url = config.str_at(&["url"]);
    let service = config.get("service").filter(|service| !service.is_null());
    match (url, service) {
        ("", None) => found.push(FieldError::required(PATH, "exactly one of url or service is required")),
        ("", Some(service)) => webhook_service(service, &format!("{PATH}.service"), found),
        (_, Some(_)) => found.push(FieldError::required(PATH, "exactly one of url or service is required")),
        (url, None) => webhook_url(url, &format!("{PATH}.url"), found),
    }
    let bundle = config.str_at(&["caBundle"]);
    if established && !bundle.is_empty() && !is_certificates(bundle) {
        let why = "unable to load root certificates: unable to parse bytes as PEM block";
        found.push(FieldError::invalid(format!("{PATH}.caBundle"), BadValue::Text(bundle.to_owned()), why));
    }
}

fn is_certificates(bundle: &str) -> bool {
    use base64::Engine as _;
    let decoded = base64::engine::general_purpose::STANDARD.decode(bundle).unwrap_or_default();
    String::from_utf8_lossy(&decoded).contains("-----BEGIN CERTIFICATE-----")
}

fn webhook_url(url: &str, path: &str, found: &mut Found) {
    const FORM: &str = "; desired format: https://host[/path]";
    let mut wrong = |value: &str, why: &str| found.push(FieldError::invalid(path, value, format!("{why}{FORM}")));
    let Some(rest) = url.strip_prefix("https://") else {
        let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
        return wrong(scheme, "'https' is the only allowed URL scheme");
    };
    let (place, fragment) = rest.split_once('#').unwrap_or((rest, ""));
    let (place, query) = place.split_once('?').unwrap_or((place, ""));
    let authority = place.split('/').next().unwrap_or("");
    if authority.is_empty() {
        wrong("", "host must be specified");
    }
    if authority.contains('@') {
        wrong(authority, "user information is not permitted in the URL");
    }
    if !fragment.is_empty() {
        wrong(fragment, "fragments are not permitted in the URL");
    }
    if !query.is_empty() {
        wrong(query, "query parameters are not permitted in the URL");
    }
}

fn webhook_service(service: &Tree, path: &str, found: &mut Found) {
    for (field, why) in [("name", "service name is required"), ("namespace", "service namespace is required")] {
        if service.str_at(&[field]).is_empty() {
            found.push(FieldError::required(format!("{path}.{field}"), why));
        }
    }
    let port = service.int_at(&["port"]).unwrap_or(443);
    let wrong = name::port_number(port);
    if !wrong.is_empty() {
        let why = format!("port is not valid: {}", wrong.join(","));
        found.push(FieldError::invalid(format!("{path}.port"), port, why));
    }
    let text = service.str_at(&["path"]);
    if text.is_empty() {
        return;
    }
    let field = format!("{path}.path");
    if !text.starts_with('/') {
        found.push(FieldError::invalid(&field, text, "must start with a '/'"));
    }
    let steps: Vec<&str> = text.trim_start_matches('/').split('/').collect();
    for (index, step) in steps.iter().enumerate() {
        if step.is_empty() && index + 1 < steps.len() {
            found.push(FieldError::invalid(&field, text, format!("segment[{index}] may not be empty")));
        } else if !step.is_empty() {
            let why = name::dns1123_subdomain(step);
            found.extend(
                why.into_iter().map(|why| FieldError::invalid(&field, text, format!("segment[{index}]: {why}"))),
            );
        }
    }
}

fn review_versions(versions: &[Tree], old: Option<&Tree>, found: &mut Found) {
    const PATH: &str = "spec.conversion.conversionReviewVersions";
    let known = |one: &Tree| matches!(one.as_str(), Some("v1" | "v1beta1"));
    if versions.is_empty() {
        return found.push(FieldError::required(PATH, ""));
    }
    let mut seen = std::collections::HashSet::new();
    for (index, version) in versions.iter().enumerate() {
        let (text, field) = (version.as_str().unwrap_or(""), format!("{PATH}[{index}]"));
        if !seen.insert(text) {
            found.push(FieldError::invalid(field, text, "duplicate version"));
            continue;
        }
        found.extend(name::dns1035_label(text).into_iter().map(|why| FieldError::invalid(&field, text, why)));
    }
    let before = old.map_or(&[][..], |old| old.list_at(&["conversion", "webhook", "conversionReviewVersions"]));
    if !versions.iter().any(known) && (before.is_empty() || before.iter().any(known)) {
        let shown = BadValue::from(&Tree::List(versions.to_vec()));
        found.push(FieldError::invalid(PATH, shown, "must include at least one of v1, v1beta1"));
    }
}

fn immutable(spec: &Tree, old: &Tree, established: bool, found: &mut Found) {
    const ALWAYS: [&[&str]; 2] = [&["group"], &["names", "plural"]];
    const ONCE_ESTABLISHED: [&[&str]; 2] = [&["scope"], &["names", "kind"]];
    let once = ONCE_ESTABLISHED.iter().filter(|_| established);
    for path in once.chain(&ALWAYS) {
        if spec.str_at(path) != old.str_at(path) {
            let field = format!("spec.{}", path.join("."));
            found.push(FieldError::invalid(field, spec.str_at(path), "field is immutable"));
        }
    }
}
