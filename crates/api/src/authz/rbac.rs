//! Role-based access control: a snapshot of roles and bindings, kept current by watches of the
//! store, and the evaluation over it.
//!
//! Only what is bound to the asking user is looked at: bindings are filed by subject.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures::StreamExt;
use skiff_base::{Clock, Tasks};
use skiff_object::{Tree, json};
use skiff_store::{Entry, Event, EventKind, Range, Revision, Store, prefix_end};

use super::{Attributes, Authorizer, Decision, NonResourceRule, ResourceRule, Rules, Target};
use crate::authn::UserInfo;
use crate::storage::storage_key;

const GROUP: &str = "rbac.authorization.k8s.io";
/// What it holds. Collections of one group need not lie together in the store.
const PLURALS: [&str; 4] = ["clusterrolebindings", "clusterroles", "rolebindings", "roles"];
/// Between two attempts to read the roles after the store failed.
const RETRY: std::time::Duration = std::time::Duration::from_millis(500);

/// The RBAC authorizer.
pub struct Rbac {
    policy: ArcSwap<Policy>,
}

/// All roles and bindings at one moment.
#[derive(Clone, Default)]
struct Policy {
    /// By namespace (empty for cluster roles) and name.
    roles: BTreeMap<(String, String), Arc<[Rule]>>,
    /// By namespace (empty for cluster role bindings) and name.
    bindings: BTreeMap<(String, String), Arc<Binding>>,
    /// Bindings by namespace (empty for cluster role bindings) and subject.
    by_subject: HashMap<String, Filed>,
}

/// Bindings by the name of a user or group.
type ByName = HashMap<String, Vec<Arc<Binding>>>;

/// The bindings of one namespace by whom they bind.
#[derive(Clone, Default)]
struct Filed {
    users: ByName,
    groups: ByName,
}

impl Filed {
    fn of(&mut self, subject: &Subject) -> &mut ByName {
        match subject {
            Subject::User(_) => &mut self.users,
            Subject::Group(_) => &mut self.groups,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Subject {
    User(String),
    Group(String),
}

impl Subject {
    fn name(&self) -> &str {
        match self {
            Self::User(name) | Self::Group(name) => name,
        }
    }
}

struct Binding {
    kind: &'static str,
    name: String,
    role_kind: String,
    role: String,
    subjects: Vec<Subject>,
}

/// A `PolicyRule`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) verbs: Vec<String>,
    pub(crate) groups: Vec<String>,
    pub(crate) resources: Vec<String>,
    pub(crate) names: Vec<String>,
    pub(crate) urls: Vec<String>,
}

impl Rbac {
    /// Reads the roles of `cluster` and follows them for as long as `tasks` live.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn start(
        store: Arc<dyn Store>,
        cluster: &str,
        clock: Clock,
        tasks: &Tasks,
    ) -> Result<Arc<Self>, skiff_store::Error> {
        let prefix = group_prefix(cluster);
        let (policy, mut revisions) = read_all(&*store, &prefix).await?;
        let this = Arc::new(Self { policy: ArcSwap::from_pointee(policy) });
        let follower = Arc::clone(&this);
        tasks.spawn("rbac", async move {
            loop {
                if let Err(error) = follower.follow(&*store, &prefix, revisions).await {
                    tracing::warn!(%error, "watch of roles broke, reading them again");
                }
                match read_all(&*store, &prefix).await {
                    Ok((policy, at)) => {
                        follower.policy.store(Arc::new(policy));
                        revisions = at;
                    }
                    Err(error) => {
                        tracing::error!(%error, "read roles");
                        clock.sleep(RETRY).await;
                    }
                }
            }
        });
        Ok(this)
    }

    /// Every rule that `user` has in `namespace` (in the cluster when it is empty).
    pub(crate) fn held(&self, user: &UserInfo, namespace: &str) -> Vec<Rule> {
        let policy = self.policy.load();
        let bindings = policy.bindings_of(user, namespace);
        bindings
            .filter_map(|(place, binding)| policy.rules_of(place, binding))
            .flat_map(|rules| rules.iter().cloned())
            .collect()
    }

    async fn follow(&self, store: &dyn Store, prefix: &[u8], revisions: Revisions) -> Result<(), skiff_store::Error> {
        let mut watches = Vec::new();
        for (plural, revision) in PLURALS.into_iter().zip(revisions) {
            let (start, end) = bounds(prefix, plural);
            watches.push(store.watch(start, end, Some(revision)).await?);
        }
        // One that ends is a reason to begin anew, as one that fails is.
        let ended = || futures::stream::once(async { None });
        let watches = watches.into_iter().map(|watch| watch.map(Some).chain(ended()).boxed());
        let mut events = futures::stream::select_all(watches);
        while let Some(Some(event)) = events.next().await {
            if let Event::Change { kind, entry, .. } = event? {
                let mut policy = (**self.policy.load()).clone();
                policy.change(prefix, kind, &entry);
                self.policy.store(Arc::new(policy));
            }
        }
        Ok(())
    }
}

/// Everything of the group has this prefix; the plural follows.
fn group_prefix(cluster: &str) -> Bytes {
    let key = storage_key(cluster, GROUP, "x", "", "x");
    let end = key.windows(3).rposition(|part| part == b"/x/").map_or(key.len(), |index| index + 1);
    key.slice(..end)
}

/// The keys of a collection of the group.
fn bounds(prefix: &[u8], plural: &str) -> (Bytes, Bytes) {
    let start = [prefix, plural.as_bytes(), b"/"].concat();
    let end = prefix_end(&start);
    (start.into(), end)
}

/// As of when each collection was read.
type Revisions = [Revision; PLURALS.len()];

async fn read_all(store: &dyn Store, prefix: &Bytes) -> Result<(Policy, Revisions), skiff_store::Error> {
    let mut policy = Policy::default();
    let mut revisions = Revisions::default();
    for (plural, revision) in PLURALS.into_iter().zip(&mut revisions) {
        let (start, end) = bounds(prefix, plural);
        let result = store.range(Range { start, end, ..Range::default() }).await?;
        for entry in &result.entries {
            policy.change(prefix, EventKind::Put, entry);
        }
        *revision = result.revision;
    }
    Ok((policy, revisions))
}

impl Policy {
    fn change(&mut self, prefix: &[u8], kind: EventKind, entry: &Entry) {
        let Some((plural, namespace, name)) = place(prefix, &entry.key) else { return };
        let place = (namespace.to_owned(), name.to_owned());
        let object = match kind {
            EventKind::Put => match json::decode_untyped(&entry.value) {
                Ok(object) => Some(object),
                Err(error) => {
                    tracing::error!(plural, namespace, name, %error, "stored role is unreadable and grants nothing");
                    None
                }
            },
            EventKind::Delete => None,
        };
        match plural {
            "roles" | "clusterroles" => match object {
                Some(object) => {
                    self.roles.insert(place, object.list_at(&["rules"]).iter().map(Rule::of).collect());
                }
                None => {
                    self.roles.remove(&place);
                }
            },
            "rolebindings" | "clusterrolebindings" => {
                if let Some(old) = self.bindings.remove(&place) {
                    self.unfile(&place.0, &old);
                }
                if let Some(object) = object {
                    let binding = Arc::new(Binding::of(&object, namespace));
                    for subject in &binding.subjects {
                        let filed = self.by_subject.entry(place.0.clone()).or_default();
                        let slot = filed.of(subject).entry(subject.name().to_owned()).or_default();
                        slot.push(Arc::clone(&binding));
                    }
                    self.bindings.insert(place, binding);
                }
            }
            _ => {}
        }
    }

    fn unfile(&mut self, namespace: &str, binding: &Arc<Binding>) {
        let Some(filed) = self.by_subject.get_mut(namespace) else { return };
        for subject in &binding.subjects {
            let named = filed.of(subject);
            if let Some(slot) = named.get_mut(subject.name()) {
                slot.retain(|one| !Arc::ptr_eq(one, binding));
                if slot.is_empty() {
                    named.remove(subject.name());
                }
            }
        }
        if filed.users.is_empty() && filed.groups.is_empty() {
            self.by_subject.remove(namespace);
        }
    }

    /// The bindings of `user`, those of the cluster first, then those of `namespace`.
    fn bindings_of<'a>(
        &'a self,
        user: &'a UserInfo,
        namespace: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a Binding)> {
        let places = std::iter::once("").chain((!namespace.is_empty()).then_some(namespace));
        places.flat_map(move |place| {
            let filed = self.by_subject.get(place).into_iter();
            filed
                .flat_map(|filed| {
                    let groups = user.groups.iter().filter_map(|group| filed.groups.get(group));
                    filed.users.get(&user.name).into_iter().chain(groups).flatten()
                })
                .map(move |binding| (place, &**binding))
        })
    }

    fn rules_of(&self, place: &str, binding: &Binding) -> Option<&Arc<[Rule]>> {
        let namespace = if binding.role_kind == "Role" { place } else { "" };
        self.roles.get(&(namespace.to_owned(), binding.role.clone()))
    }
}

/// Plural, namespace and name of a key below `prefix`.
fn place<'a>(prefix: &[u8], key: &'a [u8]) -> Option<(&'a str, &'a str, &'a str)> {
    let rest = std::str::from_utf8(key.strip_prefix(prefix)?).ok()?;
    let (plural, rest) = rest.split_once('/')?;
    let (namespace, name) = rest.rsplit_once('/').unwrap_or(("", rest));
    Some((plural, namespace, name))
}

fn texts(tree: &Tree, field: &str) -> Vec<String> {
    tree.list_at(&[field]).iter().filter_map(Tree::as_str).map(ToOwned::to_owned).collect()
}

impl Rule {
    pub(crate) fn of(tree: &Tree) -> Self {
        Self {
            verbs: texts(tree, "verbs"),
            groups: texts(tree, "apiGroups"),
            resources: texts(tree, "resources"),
            names: texts(tree, "resourceNames"),
            urls: texts(tree, "nonResourceURLs"),
        }
    }

    pub(crate) fn allows(&self, attributes: &Attributes<'_>) -> bool {
        let has = |list: &[String], wanted: &str| list.iter().any(|one| one == "*" || one == wanted);
        if !has(&self.verbs, attributes.verb) {
            return false;
        }
        match attributes.target {
            Target::Path(path) => self.urls.iter().any(|url| url_matches(url, path)),
            Target::Resource { group, resource, subresource, name, .. } => {
                has(&self.groups, group)
                    && self.resources.iter().any(|one| resource_matches(one, resource, subresource))
                    && (self.names.is_empty() || self.names.iter().any(|one| one == name))
            }
        }
    }
}

fn url_matches(url: &str, path: &str) -> bool {
    url == "*" || url == path || url.strip_suffix('*').is_some_and(|prefix| path.starts_with(prefix))
}

/// `pods`, `pods/log`, `*`, or `*/scale` for a subresource of everything.
fn resource_matches(rule: &str, resource: &str, subresource: &str) -> bool {
    if rule == "*" {
        return true;
    }
    match rule.split_once('/') {
        Some((of, sub)) => sub == subresource && (of == "*" || of == resource),
        None => subresource.is_empty() && rule == resource,
    }
}

impl Binding {
    fn of(tree: &Tree, namespace: &str) -> Self {
        let subjects = tree.list_at(&["subjects"]).iter().filter_map(|subject| {
            let name = subject.str_at(&["name"]);
            match subject.str_at(&["kind"]) {
                "User" => Some(Subject::User(name.to_owned())),
                "Group" => Some(Subject::Group(name.to_owned())),
                "ServiceAccount" => {
                    let own = subject.str_at(&["namespace"]);
                    let own = if own.is_empty() { namespace } else { own };
                    Some(Subject::User(format!("system:serviceaccount:{own}:{name}")))
                }
                _ => None,
            }
        });
        Self {
            kind: if namespace.is_empty() { "ClusterRoleBinding" } else { "RoleBinding" },
            name: tree.str_at(&["metadata", "name"]).to_owned(),
            role_kind: tree.str_at(&["roleRef", "kind"]).to_owned(),
            role: tree.str_at(&["roleRef", "name"]).to_owned(),
            subjects: subjects.collect(),
        }
    }
}

impl Authorizer for Rbac {
    fn roles(&self) -> Option<&Rbac> {
        Some(self)
    }

    fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        let policy = self.policy.load();
        let namespace = match attributes.target {
            Target::Resource { namespace, .. } => namespace,
            Target::Path(_) => "",
        };
        let mut missing = Vec::new();
        for (place, binding) in policy.bindings_of(attributes.user, namespace) {
            match policy.rules_of(place, binding) {
                Some(rules) if rules.iter().any(|rule| rule.allows(attributes)) => {
                    let full =
                        if place.is_empty() { binding.name.clone() } else { format!("{}/{place}", binding.name) };
                    return Decision::Allow(format!(
                        "RBAC: allowed by {} {full:?} of {} {:?} to {}",
                        binding.kind,
                        binding.role_kind,
                        binding.role,
                        subject_text(binding, attributes.user)
                    ));
                }
                Some(_) => {}
                None => missing.push(match binding.role_kind.as_str() {
                    "Role" => format!("role.rbac.authorization.k8s.io {:?} not found", binding.role),
                    _ => format!("clusterrole.rbac.authorization.k8s.io {:?} not found", binding.role),
                }),
            }
        }
        missing.sort();
        missing.dedup();
        Decision::NoOpinion(match missing.len() {
            0 => String::new(),
            1 => format!("RBAC: {}", missing[0]),
            _ => format!("RBAC: [{}]", missing.join(", ")),
        })
    }

    fn rules(&self, user: &UserInfo, namespace: &str) -> Rules {
        let policy = self.policy.load();
        let mut rules = Rules::default();
        for (place, binding) in policy.bindings_of(user, namespace) {
            for rule in policy.rules_of(place, binding).into_iter().flat_map(|rules| rules.iter()) {
                if rule.urls.is_empty() {
                    rules.resource.push(ResourceRule {
                        verbs: rule.verbs.clone(),
                        api_groups: rule.groups.clone(),
                        resources: rule.resources.clone(),
                        resource_names: rule.names.clone(),
                    });
                } else {
                    rules.non_resource.push(NonResourceRule { verbs: rule.verbs.clone(), urls: rule.urls.clone() });
                }
            }
        }
        rules
    }
}

fn subject_text(binding: &Binding, user: &UserInfo) -> String {
    let matching = binding.subjects.iter().find(|subject| match subject {
        Subject::User(name) => *name == user.name,
        Subject::Group(name) => user.in_group(name),
    });
    match matching {
        Some(Subject::User(name)) => {
            match name.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':')) {
                Some((namespace, name)) => format!("ServiceAccount \"{name}/{namespace}\""),
                None => format!("User {name:?}"),
            }
        }
        Some(Subject::Group(name)) => format!("Group {name:?}"),
        None => "nobody".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authz::policy;

    fn policy_of(objects: impl IntoIterator<Item = (&'static str, &'static str, Tree)>) -> Rbac {
        let mut policy = Policy::default();
        for (plural, namespace, object) in objects {
            let name = object.str_at(&["metadata", "name"]);
            let key = storage_key("c", GROUP, plural, namespace, name);
            let entry = Entry {
                key,
                value: json::encode_untyped(&object).into(),
                create_revision: 1,
                mod_revision: 1,
                version: 1,
                lease: None,
            };
            policy.change(&group_prefix("c"), EventKind::Put, &entry);
        }
        Rbac { policy: ArcSwap::from_pointee(policy) }
    }

    fn bootstrap() -> Rbac {
        policy_of(policy::objects().into_iter().map(|one| (one.plural, one.namespace, one.object)))
    }

    fn asks(rbac: &Rbac, user: &UserInfo, verb: &str, group: &str, resource: &str, namespace: &str) -> bool {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let target = Target::Resource { group, version: "v1", resource, subresource, namespace, name: "" };
        rbac.authorize(&Attributes::new(user, verb, target)).is_allowed()
    }

    #[test]
    fn controllers_may_do_their_work_and_no_more() {
        let rbac = bootstrap();
        let deployment = UserInfo::new("system:serviceaccount:kube-system:deployment-controller", &[]);
        assert!(asks(&rbac, &deployment, "create", "apps", "replicasets", "default"));
        assert!(asks(&rbac, &deployment, "update", "apps", "deployments/status", "default"));
        assert!(!asks(&rbac, &deployment, "delete", "apps", "deployments", "default"));
        assert!(!asks(&rbac, &deployment, "get", "", "secrets", "default"));
        let collector = UserInfo::new("system:serviceaccount:kube-system:generic-garbage-collector", &[]);
        assert!(asks(&rbac, &collector, "delete", "anything.example.com", "things", "default"));
    }

    #[test]
    fn anonymous_sees_health_and_version_only() {
        let rbac = bootstrap();
        let path =
            |user: &UserInfo, path| rbac.authorize(&Attributes::new(user, "get", Target::Path(path))).is_allowed();
        let (anonymous, known) = (UserInfo::anonymous(), UserInfo::new("jane", &[]));
        assert!(path(&anonymous, "/healthz"));
        assert!(path(&anonymous, "/version"));
        assert!(!path(&anonymous, "/apis"));
        assert!(path(&known, "/apis/apps/v1"));
        assert!(!path(&known, "/metrics"));
    }

    #[test]
    fn a_role_binding_reaches_its_namespace_only() {
        let mut binding = Tree::map();
        binding.set(&["metadata", "name"], "b");
        binding.set(&["roleRef", "kind"], "ClusterRole");
        binding.set(&["roleRef", "name"], "view");
        let mut subject = Tree::map();
        subject.set(&["kind"], "ServiceAccount");
        subject.set(&["name"], "robot");
        binding.set(&["subjects"], vec![subject]);
        let mut objects: Vec<_> =
            policy::objects().into_iter().map(|one| (one.plural, one.namespace, one.object)).collect();
        objects.push(("rolebindings", "team", binding));
        let rbac = policy_of(objects);
        let robot = UserInfo::new("system:serviceaccount:team:robot", &[]);
        assert!(asks(&rbac, &robot, "list", "", "pods", "team"));
        assert!(!asks(&rbac, &robot, "list", "", "pods", "other"));
        assert!(!asks(&rbac, &robot, "list", "", "pods", ""));
        assert!(!asks(&rbac, &robot, "get", "", "secrets", "team"));
        assert!(!asks(&rbac, &robot, "create", "", "pods", "team"));
    }

    #[test]
    fn a_binding_without_its_role_says_so() {
        let mut binding = Tree::map();
        binding.set(&["metadata", "name"], "b");
        binding.set(&["roleRef", "kind"], "ClusterRole");
        binding.set(&["roleRef", "name"], "gone");
        let mut subject = Tree::map();
        subject.set(&["kind"], "User");
        subject.set(&["name"], "jane");
        binding.set(&["subjects"], vec![subject]);
        let rbac = policy_of([("clusterrolebindings", "", binding)]);
        let user = UserInfo::new("jane", &[]);
        let target = Target::Path("/x");
        assert_eq!(
            rbac.authorize(&Attributes::new(&user, "get", target)),
            Decision::NoOpinion("RBAC: clusterrole.rbac.authorization.k8s.io \"gone\" not found".into())
        );
    }
}
