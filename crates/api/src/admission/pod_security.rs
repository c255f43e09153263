//! `PodSecurity`: the Pod Security Standards, as the labels of namespaces want them.
//!
//! Pods are refused, noted and warned about; what makes pods is noted and warned about; a namespace
//! whose labels get stricter is told which of its pods would no longer be let in. [`policy`] reads
//! labels, [`checks`] are the standards themselves.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use skiff_object::{Tree, json};

use self::checks::{Findings, Pod};
use self::policy::{Level, PREFIX, Policy, Rules};
use super::{Attributes, Operation, Plugin};
use crate::errors::{ApiError, ApiResult, Cause};
use crate::meta;
use crate::registry;
use crate::server::ApiServer;

pub mod checks;
pub mod policy;

/// So many pods of a namespace are looked at when its labels change, and so long; as upstream.
const PODS_CHECKED_MAX: usize = 3_000;
const PODS_CHECK_TIME_MAX: Duration = Duration::from_secs(1);

/// `PodSecurityConfiguration`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// What holds where a namespace says nothing.
    pub defaults: Policy,
    /// Users that are not asked.
    pub exempt_usernames: Vec<String>,
    /// Namespaces that are not asked.
    pub exempt_namespaces: Vec<String>,
    /// Runtime classes whose pods are not asked.
    pub exempt_runtime_classes: Vec<String>,
}

/// See the [module](self).
pub struct PodSecurity {
    settings: Settings,
}

impl PodSecurity {
    /// With these settings.
    pub fn new(settings: &Settings) -> Self {
        Self { settings: settings.clone() }
    }
}

/// Resources with a pod's template, and where it is.
const TEMPLATES: [(&str, &str, &[&str]); 8] = [
    ("", "replicationcontrollers", &["spec", "template"]),
    ("", "podtemplates", &["template"]),
    ("apps", "replicasets", &["spec", "template"]),
    ("apps", "deployments", &["spec", "template"]),
    ("apps", "statefulsets", &["spec", "template"]),
    ("apps", "daemonsets", &["spec", "template"]),
    ("batch", "jobs", &["spec", "template"]),
    ("batch", "cronjobs", &["spec", "jobTemplate", "spec", "template"]),
];

/// Subresources of pods that change nothing about what runs.
const IGNORED: [&str; 8] = ["exec", "attach", "binding", "eviction", "log", "portforward", "proxy", "status"];

fn template(attributes: &Attributes<'_>) -> Option<&'static [&'static str]> {
    TEMPLATES.iter().find(|(group, plural, _)| attributes.is(group, plural)).map(|(_, _, path)| *path)
}

fn is_pod(attributes: &Attributes<'_>) -> bool {
    registry::is(attributes.subject.kind.as_ref(), "", "pods")
        && !IGNORED.contains(&attributes.subject.subresource.as_str())
}

#[async_trait]
impl Plugin for PodSecurity {
    fn name(&self) -> &'static str {
        "PodSecurity"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        matches!(attributes.operation, Operation::Create | Operation::Update)
            && (is_pod(attributes) || attributes.is("", "namespaces") || template(attributes).is_some())
    }

    async fn validate(
        &self,
        server: &ApiServer,
        attributes: &Attributes<'_>,
        object: &Tree,
        old: Option<&Tree>,
    ) -> ApiResult<()> {
        if attributes.is("", "namespaces") {
            return self.namespace(server, attributes, object, old).await;
        }
        let is_pod = is_pod(attributes);
        if let Some(exempt) = self.exemption(attributes) {
            note(attributes, "exempt", exempt);
            return Ok(());
        }
        let namespace = server.collection("", "namespaces").get("", &attributes.subject.namespace).await?;
        let Some(namespace) = namespace else {
            let why = format!("failed to lookup namespace {:?}", attributes.subject.namespace);
            return if is_pod { Err(ApiError::internal(why)) } else { Ok(()) };
        };
        let namespace = json::decode_untyped(&namespace.value).map_err(ApiError::internal)?;
        let (policy, wrong) = self.policy(&namespace);
        if !is_pod {
            let silent = policy.warn.level == Level::Privileged && policy.audit.level == Level::Privileged;
            if silent && wrong.is_empty() {
                return Ok(());
            }
            let Some(template) = template(attributes).and_then(|path| object.at(path)) else { return Ok(()) };
            return self.evaluate(attributes, &policy, &wrong, template, Enforcing::No);
        }
        if policy.is_fully_privileged() && wrong.is_empty() {
            note(attributes, "enforce-policy", &Rules::default().to_string());
            return Ok(());
        }
        if attributes.operation == Operation::Update && old.is_some_and(|old| !is_significant(object, old)) {
            return Ok(());
        }
        self.evaluate(attributes, &policy, &wrong, object, Enforcing::Yes)
    }
}

/// Whether what is found leads to a refusal.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Enforcing {
    Yes,
    No,
}

fn note(attributes: &Attributes<'_>, key: &str, value: &str) {
    attributes.annotate(&format!("{PREFIX}{key}"), value);
}

impl PodSecurity {
    fn policy(&self, namespace: &Tree) -> (Policy, Vec<Cause>) {
        Policy::of(namespace.at(&["metadata", "labels"]), &self.settings.defaults)
    }

    /// Why nobody looks, if so.
    fn exemption(&self, attributes: &Attributes<'_>) -> Option<&'static str> {
        let has = |list: &[String], name: &str| list.iter().any(|one| one == name);
        if has(&self.settings.exempt_namespaces, &attributes.subject.namespace) {
            return Some("namespace");
        }
        has(&self.settings.exempt_usernames, &attributes.user.name).then_some("user")
    }

    fn is_exempt_class(&self, spec: &Tree) -> bool {
        let class = spec.str_at(&["runtimeClassName"]);
        !class.is_empty() && self.settings.exempt_runtime_classes.iter().any(|one| one == class)
    }

    fn evaluate(
        &self,
        attributes: &Attributes<'_>,
        policy: &Policy,
        wrong: &[Cause],
        pod: &Tree,
        enforcing: Enforcing,
    ) -> ApiResult<()> {
        let nothing = Tree::Null;
        let part = |name: &str| pod.get(name).unwrap_or(&nothing);
        let pod = Pod { metadata: part("metadata"), spec: part("spec") };
        if self.is_exempt_class(pod.spec) {
            note(attributes, "exempt", "runtimeClass");
            return Ok(());
        }
        if !wrong.is_empty() {
            let all: Vec<String> = wrong.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect();
            let all = if let [one] = all.as_slice() { one.clone() } else { format!("[{}]", all.join(", ")) };
            note(attributes, "error", &format!("Failed to parse policy: {all}"));
        }
        let enforced =
            if enforcing == Enforcing::Yes { checks::evaluate(policy.enforce, pod) } else { Findings::default() };
        if enforcing == Enforcing::Yes {
            note(attributes, "enforce-policy", &policy.enforce.to_string());
        }
        let audited = checks::evaluate(policy.audit, pod);
        if !audited.0.is_empty() {
            let text = format!("would violate PodSecurity \"{}\": {}", policy.audit, audited.details());
            note(attributes, "audit-violations", &text);
        }
        if !enforced.0.is_empty() {
            let why = format!("violates PodSecurity \"{}\": {}", policy.enforce, enforced.details());
            return Err(ApiError::forbidden(attributes.subject.resource(), attributes.name, &why));
        }
        let warned = checks::evaluate(policy.warn, pod);
        if !warned.0.is_empty() {
            attributes.warn(format!("would violate PodSecurity \"{}\": {}", policy.warn, warned.details()));
        }
        Ok(())
    }

    async fn namespace(
        &self,
        server: &ApiServer,
        attributes: &Attributes<'_>,
        new: &Tree,
        old: Option<&Tree>,
    ) -> ApiResult<()> {
        let (policy, wrong) = self.policy(new);
        let (before, wrong_before) = match old {
            Some(old) => {
                let (policy, wrong) = self.policy(old);
                (Some(policy), wrong)
            }
            None => (None, Vec::new()),
        };
        let shown =
            |causes: &[Cause]| causes.iter().map(|one| format!("{}{}", one.field, one.message)).collect::<Vec<_>>();
        if !wrong.is_empty() && shown(&wrong) != shown(&wrong_before) {
            return Err(ApiError::invalid(attributes.subject.kind_name(), attributes.name, wrong));
        }
        let (now, name) = (policy.enforce, meta::name(new));
        if let Some(before) = before {
            let was = before.enforce;
            let is_relaxed = now.version == was.version && now.level <= was.level;
            if now == was || now.level == Level::Privileged || is_relaxed {
                return Ok(());
            }
        }
        if self.settings.exempt_namespaces.iter().any(|one| one == name) {
            self.warn_exempt(attributes, name, &policy, new);
        } else if before.is_some() {
            self.look_at_pods(server, attributes, name, now).await?;
        }
        Ok(())
    }

    fn warn_exempt(&self, attributes: &Attributes<'_>, name: &str, policy: &Policy, namespace: &Tree) {
        if policy.is_fully_privileged() || policy.is_equivalent(&self.settings.defaults) {
            return;
        }
        let says = |mode: &str| {
            let has = |suffix: &str| meta::label(namespace, &format!("{PREFIX}{mode}{suffix}")).is_some();
            has("") || has("-version")
        };
        let modes = [("enforce", policy.enforce), ("audit", policy.audit), ("warn", policy.warn)];
        let said = modes.iter().filter(|(mode, rules)| rules.level != Level::Privileged && says(mode));
        let said: Vec<String> = said.map(|(mode, rules)| format!("{mode}={rules}")).collect();
        attributes.warn(format!(
            "namespace {name:?} is exempt from Pod Security, and the policy ({}) will be ignored",
            said.join(", ")
        ));
    }

    /// Warns about the pods that new rules would not let in.
    async fn look_at_pods(
        &self,
        server: &ApiServer,
        attributes: &Attributes<'_>,
        namespace: &str,
        rules: Rules,
    ) -> ApiResult<()> {
        let began = server.clock().instant();
        let items = server.collection("", "pods").list(namespace).await?;
        // Of the pods of one controller the first says it all, so the others come last.
        let (mut first, mut later, mut seen) = (Vec::new(), Vec::new(), Vec::<String>::new());
        for item in &items {
            let pod = json::decode_untyped(&item.stored.value).map_err(ApiError::internal)?;
            if pod.get("spec").is_some_and(|spec| self.is_exempt_class(spec)) {
                continue;
            }
            let owners = pod.list_at(&["metadata", "ownerReferences"]).iter();
            let controller =
                owners.filter(|one| one.bool_at(&["controller"]) == Some(true)).map(|one| one.str_at(&["uid"]));
            match controller.map(str::to_owned).next() {
                Some(uid) if seen.contains(&uid) => later.push(pod),
                Some(uid) => {
                    seen.push(uid);
                    first.push(pod);
                }
                None => first.push(pod),
            }
            if server.clock().instant() - began > PODS_CHECK_TIME_MAX {
                break;
            }
        }
        let (mut checked, mut found) = (0, BTreeMap::<String, (String, usize)>::new());
        for pod in first.iter().chain(&later).take(PODS_CHECKED_MAX) {
            checked += 1;
            let nothing = Tree::Null;
            let part = |name: &str| pod.get(name).unwrap_or(&nothing);
            let findings = checks::evaluate(rules, Pod { metadata: part("metadata"), spec: part("spec") });
            if !findings.0.is_empty() {
                let name = meta::name(pod);
                let entry = found.entry(findings.reasons()).or_insert_with(|| (name.to_owned(), 0));
                entry.1 += 1;
                if name < entry.0.as_str() {
                    name.clone_into(&mut entry.0);
                }
            }
            if server.clock().instant() - began > PODS_CHECK_TIME_MAX {
                break;
            }
        }
        if checked < items.len() {
            let total = items.len();
            attributes.warn(format!(
                "new PodSecurity enforce level only checked against the first {checked} of {total} existing pods"
            ));
        }
        if !found.is_empty() {
            attributes.warn(format!(
                "existing pods in namespace {namespace:?} violate the new PodSecurity enforce level \"{rules}\""
            ));
        }
        let mut lines: Vec<String> = found
            .into_iter()
            .map(|(reasons, (pod, count))| match count {
                1 => format!("{pod}: {reasons}"),
                2 => format!("{pod} (and 1 other pod): {reasons}"),
                _ => format!("{pod} (and {} other pods): {reasons}", count - 1),
            })
            .collect();
        lines.sort();
        lines.into_iter().for_each(|line| attributes.warn(line));
        Ok(())
    }
}

/// Whether an update of a pod changes what is checked: of what may be changed, images are.
fn is_significant(new: &Tree, old: &Tree) -> bool {
    let image = |container: &Tree| container.str_at(&["image"]).to_owned();
    for list in ["containers", "initContainers"] {
        let (new, old) = (new.list_at(&["spec", list]), old.list_at(&["spec", list]));
        if new.len() != old.len() || new.iter().zip(old).any(|(new, old)| image(new) != image(old)) {
            return true;
        }
    }
    let before = old.list_at(&["spec", "ephemeralContainers"]);
    new.list_at(&["spec", "ephemeralContainers"]).iter().any(|new| {
        let same = before.iter().find(|old| old.str_at(&["name"]) == new.str_at(&["name"]));
        same.is_none_or(|old| image(old) != image(new))
    })
}
