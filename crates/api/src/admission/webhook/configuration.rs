//! Webhook configurations, made ready for use and kept until they change.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use base64::Engine;
use skiff_object::selector::label::{LabelSelectorError, Selector};
use skiff_object::{Tree, json};

use super::conditions::Conditions;
use crate::errors::{ApiError, ApiResult};
use crate::meta;
use crate::outbound::{Address, Target, Trust};
use crate::server::ApiServer;
use crate::storage::Item;

/// The group of everything that configures admission.
pub const GROUP: &str = "admissionregistration.k8s.io";
/// A webhook that does not say gets this long.
const TIMEOUT_DEFAULT_SECONDS: i64 = 10;
/// The longest that a configuration may ask for.
const TIMEOUT_MAX_SECONDS: i64 = 30;

/// What happens when a webhook cannot be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailurePolicy {
    /// The write is refused.
    Fail,
    /// The write goes on.
    Ignore,
}

/// Which writes a webhook wants to see. `*` is everything; a resource is `plural`, `plural/sub` or
/// either half as `*`.
#[derive(Debug)]
pub struct Rule {
    pub(super) operations: Vec<String>,
    pub(super) groups: Vec<String>,
    pub(super) versions: Vec<String>,
    pub(super) resources: Vec<String>,
    /// Names of objects, where a policy limits a rule to some; empty for all.
    pub(super) names: Vec<String>,
    pub(super) scope: String,
}

impl Rule {
    /// A rule of a webhook, or of the `matchConstraints` of a policy.
    pub(in crate::admission) fn read(rule: &Tree) -> Self {
        Self {
            operations: texts(rule, &["operations"]),
            groups: texts(rule, &["apiGroups"]),
            versions: texts(rule, &["apiVersions"]),
            resources: texts(rule, &["resources"]),
            names: texts(rule, &["resourceNames"]),
            scope: rule.str_at(&["scope"]).to_owned(),
        }
    }
}

/// One webhook, ready to be asked.
pub struct Hook {
    /// `metadata.name` of its configuration.
    pub configuration: String,
    /// Its own name.
    pub name: String,
    /// Configuration, name, and how many of that name come before it.
    pub uid: String,
    /// Which writes it wants to see.
    pub rules: Vec<Rule>,
    /// Whether it also wants to see those writes through another version or group.
    pub is_equivalent: bool,
    /// What happens when it cannot be asked.
    pub failure_policy: FailurePolicy,
    /// Labels of the namespace.
    pub namespace_selector: Result<Selector, LabelSelectorError>,
    /// Labels of the object.
    pub object_selector: Result<Selector, LabelSelectorError>,
    /// Expressions that must hold.
    pub conditions: Conditions,
    /// `sideEffects`
    pub side_effects: String,
    /// How long it may take.
    pub timeout: Duration,
    /// `admissionReviewVersions`
    pub review_versions: Vec<String>,
    /// Whether it is asked again when somebody changed the object after it.
    pub is_reinvoked: bool,
    /// Where it is.
    pub target: Result<Target, String>,
}

/// The hooks of one kind of configuration, in the order in which they are called.
pub struct Source {
    plural: &'static str,
    ready: ArcSwap<Ready>,
}

/// Hooks with the objects they were made from.
#[derive(Default)]
struct Ready {
    from: Vec<Arc<Item>>,
    hooks: Arc<Vec<Arc<Hook>>>,
}

impl Source {
    pub(super) fn new(plural: &'static str) -> Self {
        Self { plural, ready: ArcSwap::default() }
    }

    /// The hooks as of now: every configuration whose write this server has answered is in them.
    pub(super) async fn hooks(&self, server: &ApiServer) -> ApiResult<Arc<Vec<Arc<Hook>>>> {
        let collection = server.collection(GROUP, self.plural);
        let snapshot = collection.known().await?;
        let ready = self.ready.load();
        if snapshot.is_empty() && ready.from.is_empty() {
            return Ok(Arc::clone(&ready.hooks));
        }
        let prefix = collection.prefix();
        // Keys end in the name, so this is the order of names.
        let items: Vec<Arc<Item>> = snapshot.range(&prefix, None).map(|(_, item)| Arc::clone(item)).collect();
        let is_same = items.len() == ready.from.len() && items.iter().zip(&ready.from).all(|(a, b)| Arc::ptr_eq(a, b));
        if is_same {
            return Ok(Arc::clone(&ready.hooks));
        }
        let mut hooks = Vec::new();
        for item in &items {
            let object = json::decode_untyped(&item.stored.value).map_err(ApiError::internal)?;
            hooks.extend(read(&object));
        }
        let fresh = Ready { from: items, hooks: Arc::new(hooks) };
        let hooks = Arc::clone(&fresh.hooks);
        self.ready.store(Arc::new(fresh));
        Ok(hooks)
    }
}

fn texts(tree: &Tree, path: &[&str]) -> Vec<String> {
    tree.list_at(path).iter().filter_map(Tree::as_str).map(str::to_owned).collect()
}

/// The hooks of one configuration, in their order.
fn read(configuration: &Tree) -> Vec<Arc<Hook>> {
    let mut seen: HashMap<String, usize> = HashMap::new();
    let webhooks = configuration.list_at(&["webhooks"]).iter();
    webhooks.map(|webhook| Arc::new(hook(meta::name(configuration), webhook, &mut seen))).collect()
}

fn hook(configuration: &str, webhook: &Tree, seen: &mut HashMap<String, usize>) -> Hook {
    let name = webhook.str_at(&["name"]).to_owned();
    let before = seen.entry(name.clone()).or_default();
    let uid = format!("{configuration}/{name}/{before}");
    *before += 1;
    let rules = webhook.list_at(&["rules"]).iter().map(Rule::read);
    let ignores = webhook.str_at(&["failurePolicy"]) == "Ignore";
    let failure_policy = if ignores { FailurePolicy::Ignore } else { FailurePolicy::Fail };
    let seconds = webhook.int_at(&["timeoutSeconds"]).unwrap_or(TIMEOUT_DEFAULT_SECONDS);
    Hook {
        configuration: configuration.to_owned(),
        uid,
        rules: rules.collect(),
        is_equivalent: webhook.str_at(&["matchPolicy"]) != "Exact",
        failure_policy,
        namespace_selector: selector(webhook.get("namespaceSelector")),
        object_selector: selector(webhook.get("objectSelector")),
        conditions: Conditions::new(webhook.list_at(&["matchConditions"]), failure_policy),
        side_effects: webhook.str_at(&["sideEffects"]).to_owned(),
        timeout: Duration::from_secs(seconds.clamp(1, TIMEOUT_MAX_SECONDS).unsigned_abs()),
        review_versions: texts(webhook, &["admissionReviewVersions"]),
        is_reinvoked: webhook.str_at(&["reinvocationPolicy"]) == "IfNeeded",
        target: target(webhook),
        name,
    }
}

/// Absent means everything here, as the defaults say.
pub(in crate::admission) fn selector(tree: Option<&Tree>) -> Result<Selector, LabelSelectorError> {
    let empty = Tree::map();
    Selector::from_object(Some(tree.filter(|tree| !tree.is_null()).unwrap_or(&empty)))
}

fn target(webhook: &Tree) -> Result<Target, String> {
    let config = webhook.get("clientConfig");
    let text = |path: &[&str]| config.map_or("", |config| config.str_at(path));
    let address = if config.and_then(|config| config.get("service")).is_some_and(|service| !service.is_null()) {
        let port = config.and_then(|config| config.int_at(&["service", "port"])).unwrap_or(443);
        Address::Service {
            namespace: text(&["service", "namespace"]).to_owned(),
            name: text(&["service", "name"]).to_owned(),
            port: u16::try_from(port).map_err(|_| format!("port {port} is none"))?,
            path: text(&["service", "path"]).to_owned(),
        }
    } else if text(&["url"]).is_empty() {
        return Err("webhook configuration must have either service or URL".into());
    } else {
        Address::Url(text(&["url"]).to_owned())
    };
    let bundle = text(&["caBundle"]);
    let trust = if bundle.is_empty() {
        Trust::System
    } else {
        let pem = base64::engine::general_purpose::STANDARD.decode(bundle).map_err(|error| error.to_string())?;
        Trust::Authorities(pem)
    };
    Ok(Target { trust, ..Target::new(address) })
}
