//! `ResourceQuota`: what a namespace may hold, counted and taken before a write.
//!
//! The quota object itself is where writers meet: a create takes its share by writing
//! `status.used` at the version that it judged.

use async_trait::async_trait;
use skiff_object::{Tree, json};

use super::pod_resources::{Amounts, amounts};
use super::{Attributes, Operation, Plugin, Settings};
use crate::errors::{ApiError, ApiResult};
use crate::meta;
use crate::registry;
use crate::respond;
use crate::server::ApiServer;
use crate::verbs::Subject;
use crate::write::encode_stored;

pub mod limited;
pub mod usage;

/// See the [module](self).
pub struct ResourceQuota {
    limited: Vec<limited::Limited>,
}

impl ResourceQuota {
    /// With these settings.
    pub fn new(settings: &Settings) -> Self {
        Self { limited: settings.limited_resources.clone() }
    }
}

/// A quota that many write against at once is tried so often.
const RETRIES_MAX: usize = 50;

#[async_trait]
impl Plugin for ResourceQuota {
    fn name(&self) -> &'static str {
        "ResourceQuota"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        let facts = attributes.subject.kind.facts();
        let is_resize = attributes.subject.subresource == "resize";
        match attributes.operation {
            Operation::Create => {
                attributes.subject.subresource.is_empty() && facts.namespaced && facts.plural != *"events"
            }
            // What else can come to count for more.
            Operation::Update => {
                attributes.is("", "services")
                    || attributes.is("", "persistentvolumeclaims")
                    || (is_resize && registry::is(attributes.subject.kind.as_ref(), "", "pods"))
            }
            _ => false,
        }
    }

    async fn validate(
        &self,
        server: &ApiServer,
        attributes: &Attributes<'_>,
        object: &Tree,
        old: Option<&Tree>,
    ) -> ApiResult<()> {
        let namespace = attributes.subject.namespace.as_str();
        let quotas = server.collection("", "resourcequotas").known_list(namespace).await?;
        if quotas.is_empty() && self.limited.is_empty() {
            return Ok(());
        }
        let facts = attributes.subject.kind.facts();
        let (group, plural) = (facts.group.as_str(), facts.plural.as_str());
        let mut asked = usage::of(group, plural, object);
        if let Some(old) = old.filter(|_| attributes.operation == Operation::Update) {
            asked = usage::growth(&asked, &usage::of(group, plural, old));
            if asked.is_empty() {
                return Ok(());
            }
        }
        let mut concerned = Vec::with_capacity(quotas.len());
        for item in quotas {
            let quota = json::decode_untyped(&item.stored.value).map_err(ApiError::internal)?;
            if usage::is_in_scope(&quota, plural, object) {
                concerned.push(quota);
            }
        }
        if let Some(why) = limited::refusal(&self.limited, (group, plural), object, &asked, &concerned) {
            return Err(refuse(attributes, &why));
        }
        for quota in concerned {
            let name = meta::name(&quota).to_owned();
            require(attributes, &quota, &name, object)?;
            take(server, attributes, &name, &asked).await?;
        }
        Ok(())
    }
}

fn refuse(attributes: &Attributes<'_>, why: &str) -> ApiError {
    ApiError::forbidden(attributes.subject.resource(), attributes.name, why)
}

/// A quota on compute wants every container to say what it needs.
fn require(attributes: &Attributes<'_>, quota: &Tree, name: &str, object: &Tree) -> ApiResult<()> {
    if !registry::is(attributes.subject.kind.as_ref(), "", "pods") {
        return Ok(());
    }
    let missing = usage::unsaid(&amounts(quota.at(&["spec", "hard"])), object);
    if missing.is_empty() {
        return Ok(());
    }
    let each: Vec<String> =
        missing.iter().map(|(resource, containers)| format!("{resource} for: {}", containers.join(","))).collect();
    Err(refuse(attributes, &format!("failed quota: {name}: must specify {}", each.join("; "))))
}

async fn take(server: &ApiServer, attributes: &Attributes<'_>, name: &str, asked: &Amounts) -> ApiResult<()> {
    let registry = server.registry();
    let kind =
        registry.resource("", "v1", "resourcequotas").ok_or_else(|| ApiError::internal("quotas are not served"))?;
    let subject = Subject::internal(server, kind, &attributes.subject.namespace, name);
    for _ in 0..RETRIES_MAX {
        let Some(current) = subject.collection.get(&subject.namespace, name).await? else { return Ok(()) };
        let mut quota = respond::decode_stored(kind.as_ref(), &current.value)?;
        let hard = amounts(quota.at(&["spec", "hard"]));
        let asked: Amounts = asked
            .iter()
            .filter(|(key, _)| hard.contains_key(*key))
            .map(|(key, amount)| (key.clone(), *amount))
            .collect();
        if asked.is_empty() {
            return Ok(());
        }
        // What is there counts, and what others have taken and not yet stored.
        let mut used = usage::live(server, &subject.namespace, &quota).await?;
        for (key, taken) in amounts(quota.at(&["status", "used"])) {
            if hard.contains_key(&key) && used.get(&key).is_none_or(|live| *live < taken) {
                used.insert(key, taken);
            }
        }
        check(attributes, name, &hard, &used, &asked)?;
        super::pod_resources::add(&mut used, &asked);
        usage::write(&mut quota, &hard, &used);
        if attributes.dry_run {
            return Ok(());
        }
        let value = encode_stored(kind.as_ref(), &quota)?;
        let stored = subject.collection.replace(&subject.namespace, name, value, current.revision, None).await?;
        if stored.is_some() {
            return Ok(());
        }
    }
    Err(ApiError::conflict(subject.resource(), name, "the quota is changed too often"))
}

fn check(attributes: &Attributes<'_>, name: &str, hard: &Amounts, used: &Amounts, asked: &Amounts) -> ApiResult<()> {
    let mut over = Vec::new();
    for (key, amount) in asked {
        let before = used.get(key).copied().unwrap_or(skiff_object::quantity::Quantity::ZERO);
        if !amount.is_zero() && hard.get(key).is_some_and(|limit| before + *amount > *limit) {
            over.push((key, amount, before));
        }
    }
    if over.is_empty() {
        return Ok(());
    }
    let list = |show: &dyn Fn(usize) -> String| {
        (0..over.len()).map(|at| format!("{}={}", over[at].0, show(at))).collect::<Vec<_>>().join(",")
    };
    let requested = list(&|at| over[at].1.to_string());
    let used = list(&|at| over[at].2.to_string());
    let limited = list(&|at| hard.get(over[at].0).map(ToString::to_string).unwrap_or_default());
    Err(refuse(
        attributes,
        &format!("exceeded quota: {name}, requested: {requested}, used: {used}, limited: {limited}"),
    ))
}

/// Counts anew what the quotas of a namespace hold: something is gone, or a quota is new.
pub async fn recount(server: &ApiServer, namespace: &str) -> ApiResult<()> {
    let quotas = server.collection("", "resourcequotas").list(namespace).await?;
    let registry = server.registry();
    let Some(kind) = registry.resource("", "v1", "resourcequotas") else { return Ok(()) };
    for item in quotas {
        let name = item.place().1.to_owned();
        let subject = Subject::internal(server, kind, namespace, &name);
        for _ in 0..RETRIES_MAX {
            let Some(current) = subject.collection.get(namespace, &name).await? else { break };
            let mut quota = respond::decode_stored(kind.as_ref(), &current.value)?;
            let hard = amounts(quota.at(&["spec", "hard"]));
            let used = usage::live(server, namespace, &quota).await?;
            usage::write(&mut quota, &hard, &used);
            let value = encode_stored(kind.as_ref(), &quota)?;
            if value == current.value
                || subject.collection.replace(namespace, &name, value, current.revision, None).await?.is_some()
            {
                break;
            }
        }
    }
    Ok(())
}
