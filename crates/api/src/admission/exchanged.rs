//! Admission of what is not stored as it comes: bindings, evictions, token requests, scales, and
//! the options of connections, which travel in the query.

use skiff_kinds::facts::split_api_version;
use skiff_object::Tree;

use super::{Attributes, Operation, Options, Rounds};
use crate::chain::Call;
use crate::errors::ApiResult;
use crate::request::options::{self, WriteOptions};
use crate::server::ApiServer;
use crate::verbs::Subject;

/// Admits the creation of something through a subresource, or of a review.
///
/// # Errors
/// The first refusal.
pub async fn create(
    server: &ApiServer,
    call: &Call,
    subject: &Subject,
    name: &str,
    options: &WriteOptions,
    object: &mut Tree,
) -> ApiResult<()> {
    let attributes = Attributes {
        operation: Operation::Create,
        subject,
        name,
        user: &call.user,
        dry_run: options.dry_run,
        call: Some(call),
        options: Options::Create(options),
        rounds: &Rounds::default(),
    };
    server.admission.admit(server, &attributes, object, None).await
}

/// Admits a connection to a node, a pod or a service. What admission changes about its options is
/// written back into the query.
///
/// # Errors
/// The first refusal.
pub async fn connection(server: &ApiServer, call: &mut Call, subject: &Subject) -> ApiResult<()> {
    let mut object = connection_options(call, subject);
    let before = object.clone();
    let attributes = Attributes {
        operation: Operation::Connect,
        subject,
        name: &subject.name,
        user: &call.user,
        dry_run: false,
        call: Some(call),
        options: Options::None,
        rounds: &Rounds::default(),
    };
    server.admission.admit(server, &attributes, &mut object, None).await?;
    if object != before && subject.subresource != "proxy" {
        call.query = to_query(&object);
    }
    Ok(())
}

/// The fields of connection options that are truth values; the others are texts, except those
/// that are lists.
const TRUTHS: [&str; 4] = ["stdin", "stdout", "stderr", "tty"];

fn connection_options(call: &Call, subject: &Subject) -> Tree {
    let mut object = Tree::map();
    let sub = subject.kind.facts().subresource(&subject.subresource);
    if let Some(sub) = sub {
        object.set(&["kind"], sub.kind.as_str());
        object.set(&["apiVersion"], sub.api_version.as_str());
    }
    if subject.subresource == "proxy" {
        let rest: Vec<&str> = call.info.parts.iter().skip(3).map(String::as_str).collect();
        if !rest.is_empty() {
            object.set(&["path"], rest.join("/"));
        }
        return object;
    }
    for (key, value) in options::pairs(&call.query) {
        match key.as_str() {
            "stdin" => object.set(&["stdin"], is_true(&value)),
            "stdout" => object.set(&["stdout"], is_true(&value)),
            "stderr" => object.set(&["stderr"], is_true(&value)),
            "tty" => object.set(&["tty"], is_true(&value)),
            "container" => object.set(&["container"], value),
            "command" => push(&mut object, "command", value.into()),
            "ports" => value.split(',').filter_map(|port| port.parse().ok()).for_each(|port| {
                push(&mut object, "ports", Tree::Int(port));
            }),
            _ => {}
        }
    }
    object
}

fn is_true(value: &str) -> bool {
    !(value == "0" || value.eq_ignore_ascii_case("false"))
}

fn push(object: &mut Tree, list: &'static str, item: Tree) {
    if let Tree::List(items) = object.ensure_map().entry_or(list, Tree::list) {
        items.push(item);
    }
}

fn to_query(object: &Tree) -> String {
    let mut pairs = Vec::new();
    for (key, value) in object.as_map().into_iter().flat_map(skiff_object::Map::iter) {
        let text = |value: &Tree| match value {
            Tree::Str(text) => Some(query_encode(text)),
            Tree::Int(number) => Some(number.to_string()),
            Tree::Bool(truth) => Some(truth.to_string()),
            _ => None,
        };
        let is_known = TRUTHS.contains(&key.as_str()) || matches!(key.as_str(), "container" | "command" | "ports");
        for item in value.as_list().unwrap_or(std::slice::from_ref(value)) {
            pairs.extend(text(item).filter(|_| is_known).map(|text| format!("{}={text}", key.as_str())));
        }
    }
    pairs.join("&")
}

/// Everything but unreserved characters escaped (RFC 3986).
fn query_encode(text: &str) -> String {
    use std::fmt::Write;
    text.bytes().fold(String::with_capacity(text.len()), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}

/// Group, version and kind of an `apiVersion` and kind.
pub fn group_version_kind<'a>(exchanged: (&'a str, &'a str)) -> (&'a str, &'a str, &'a str) {
    let (group, version) = split_api_version(exchanged.0);
    (group, version, exchanged.1)
}
