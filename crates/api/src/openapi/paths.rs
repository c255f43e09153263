//! The operations of every resource: which paths there are, and what each method is called.
//!
//! Names follow upstream's: `listCoreV1NamespacedPod`, `replaceAppsV1NamespacedDeploymentScale`,
//! `connectCoreV1GetNamespacedPodExec`. Client generators build on them.

use skiff_kinds::{Facts, Kind, Registry, Subresource, Verb};
use skiff_object::TypeId;

/// One method on one path.
#[derive(Clone, Debug)]
pub(crate) struct Operation {
    /// `get`, `put`, `post`, `delete`, `patch`, `head`, `options`
    pub(crate) method: &'static str,
    /// `x-kubernetes-action`
    pub(crate) action: &'static str,
    /// The operation's name.
    pub(crate) id: String,
    /// One sentence.
    pub(crate) description: String,
    /// What is sent, if anything.
    pub(crate) request: Option<Body>,
    /// What comes back.
    pub(crate) response: Body,
    /// Success beside 200.
    pub(crate) also: &'static [&'static str],
    /// Query parameters of this method alone.
    pub(crate) parameters: &'static [&'static str],
    /// Group, version and kind of what is exchanged.
    pub(crate) kind: (String, String, String),
    /// Whether the answer may be a stream of events.
    pub(crate) streams: bool,
    /// Of a custom kind: without protobuf and strategic merge.
    pub(crate) custom: bool,
}

/// What is exchanged.
#[derive(Clone, Debug)]
pub(crate) enum Body {
    /// An object of the kind's schema.
    Object(TypeId),
    /// An object of a custom kind: its group version and its kind.
    Custom(String, String),
    /// A patch in one of its forms.
    Patch,
    /// `DeleteOptions`
    DeleteOptions,
    /// `Status`
    Status,
    /// `WatchEvent`
    WatchEvent,
    /// Text or a stream, of whatever type.
    Text,
    /// `APIResourceList`
    Resources,
}

/// One path with its methods.
#[derive(Clone, Debug)]
pub(crate) struct Path {
    pub(crate) path: String,
    /// Parameters of every method, in order.
    pub(crate) parameters: Vec<&'static str>,
    /// For the description of `{name}`.
    pub(crate) kind: String,
    pub(crate) operations: Vec<Operation>,
}

const LIST: &[&str] = &[
    "allowWatchBookmarks",
    "continue",
    "fieldSelector",
    "labelSelector",
    "limit",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "timeoutSeconds",
    "watch",
];
const DELETE_COLLECTION: &[&str] = &[
    "continue",
    "dryRun",
    "fieldSelector",
    "gracePeriodSeconds",
    "labelSelector",
    "limit",
    "orphanDependents",
    "propagationPolicy",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "timeoutSeconds",
];
const DELETE: &[&str] = &["dryRun", "gracePeriodSeconds", "orphanDependents", "propagationPolicy"];
const WRITE: &[&str] = &["dryRun", "fieldManager", "fieldValidation"];
const PATCH: &[&str] = &["dryRun", "fieldManager", "fieldValidation", "force"];
const PROXY_METHODS: [&str; 7] = ["delete", "get", "head", "options", "patch", "post", "put"];

/// All paths of a group version.
pub(crate) fn of_group_version(registry: &Registry, group: &str, version: &str) -> Vec<Path> {
    let base = base(group, version);
    let mut paths = vec![Path {
        path: format!("{base}/"),
        parameters: Vec::new(),
        kind: String::new(),
        operations: vec![Operation {
            method: "get",
            action: "",
            id: format!("get{}APIResources", prefix(group, version)),
            description: "get available resources".into(),
            request: None,
            response: Body::Resources,
            also: &[],
            parameters: &[],
            kind: Default::default(),
            streams: false,
            custom: false,
        }],
    }];
    for kind in registry.group_version(group, version) {
        of_kind(&**kind, &base, &mut paths);
    }
    paths.sort_by(|one, other| one.path.cmp(&other.path));
    paths
}

/// `/api/v1` or `/apis/group/version`
pub(crate) fn base(group: &str, version: &str) -> String {
    if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") }
}

/// `core_v1`, `rbacAuthorization_v1`
pub(crate) fn tag(group: &str, version: &str) -> String {
    let name = camel(group);
    let mut characters = name.chars();
    let first = characters.next().map(|first| first.to_ascii_lowercase()).unwrap_or_default();
    format!("{first}{}_{version}", characters.as_str())
}

/// `rbac.authorization.k8s.io` is `RbacAuthorization`; the core group is `Core`.
fn camel(group: &str) -> String {
    if group.is_empty() {
        return "Core".to_owned();
    }
    let short = group.strip_suffix(".k8s.io").unwrap_or(group);
    short.split(['.', '-']).map(capital).collect()
}

fn capital(word: &str) -> String {
    let mut characters = word.chars();
    characters.next().map(|first| first.to_ascii_uppercase().to_string() + characters.as_str()).unwrap_or_default()
}

fn prefix(group: &str, version: &str) -> String {
    camel(group) + &capital(version)
}

fn of_kind(kind: &dyn Kind, base: &str, paths: &mut Vec<Path>) {
    let facts = kind.facts();
    let custom = kind.custom().is_some();
    let writer = Writer { facts, prefix: prefix(facts.group.as_str(), facts.version.as_str()), custom };
    let plural = facts.plural.as_str();
    let place = if facts.namespaced { "/namespaces/{namespace}" } else { "" };
    let collection = writer.collection();
    let one = writer.one();
    let mut push = |path: String, parameters: &[&'static str], operations: Vec<Operation>| {
        if !operations.is_empty() {
            let kind = facts.kind.as_str().to_owned();
            paths.push(Path { path, parameters: parameters.to_vec(), kind, operations });
        }
    };
    let namespace: &[&str] = if facts.namespaced { &["namespace", "pretty"] } else { &["pretty"] };
    let named: &[&str] = if facts.namespaced { &["name", "namespace", "pretty"] } else { &["name", "pretty"] };
    push(format!("{base}{place}/{plural}"), namespace, collection);
    push(format!("{base}{place}/{plural}/{{name}}"), named, one);
    if facts.namespaced && facts.verbs.contains(Verb::List) {
        push(format!("{base}/{plural}"), &["pretty"], vec![writer.list(Scope::All)]);
    }
    // Upstream has the old paths of watches for built-in kinds only.
    if facts.verbs.contains(Verb::Watch) && !custom {
        if facts.namespaced {
            push(format!("{base}/watch/{plural}"), &["pretty"], vec![writer.watch(Scope::All)]);
        }
        push(format!("{base}/watch{place}/{plural}"), namespace, vec![writer.watch(Scope::Place)]);
        push(format!("{base}/watch{place}/{plural}/{{name}}"), named, vec![writer.watch(Scope::One)]);
    }
    for subresource in &facts.subresources {
        let path = format!("{base}{place}/{plural}/{{name}}/{}", subresource.name.as_str());
        let own: &[&str] = match subresource.name.as_str() {
            "exec" | "attach" => &["command", "container", "name", "namespace", "stderr", "stdin", "stdout", "tty"],
            "portforward" => &["name", "namespace", "ports"],
            "log" => &[
                "container",
                "follow",
                "insecureSkipTLSVerifyBackend",
                "limitBytes",
                "name",
                "namespace",
                "pretty",
                "previous",
                "sinceSeconds",
                "stream",
                "tailLines",
                "timestamps",
            ],
            "proxy" if facts.namespaced => &["name", "namespace", "path"],
            "proxy" => &["name", "path"],
            _ => named,
        };
        if subresource.name == *"proxy" {
            push(format!("{path}/{{path}}"), own, writer.connect(subresource, "WithPath"));
        }
        push(path, own, writer.subresource(subresource));
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// Across all namespaces.
    All,
    /// One namespace, or the cluster for kinds without.
    Place,
    /// One object.
    One,
}

struct Writer<'a> {
    facts: &'a Facts,
    prefix: String,
    custom: bool,
}

impl Writer<'_> {
    fn body(&self) -> Body {
        match self.custom {
            true => Body::Custom(self.facts.api_version.as_str().to_owned(), self.facts.kind.as_str().to_owned()),
            false => Body::Object(self.facts.ty),
        }
    }

    fn list_body(&self) -> Body {
        match self.custom {
            true => Body::Custom(self.facts.api_version.as_str().to_owned(), self.facts.list_kind.as_str().to_owned()),
            false => self.facts.list_ty.map_or(Body::Text, Body::Object),
        }
    }

    fn kind(&self) -> (String, String, String) {
        let text = |key: &skiff_object::Key| key.as_str().to_owned();
        (text(&self.facts.group), text(&self.facts.version), text(&self.facts.kind))
    }

    fn name(&self) -> String {
        let place = if self.facts.namespaced { "Namespaced" } else { "" };
        format!("{place}{}", self.facts.kind.as_str())
    }

    fn operation(&self, method: &'static str, action: &'static str, id: String, description: String) -> Operation {
        Operation {
            method,
            action,
            id,
            description,
            request: None,
            response: self.body(),
            also: &[],
            parameters: &[],
            kind: self.kind(),
            streams: false,
            custom: self.custom,
        }
    }

    fn collection(&self) -> Vec<Operation> {
        let (kind, name, prefix) = (self.facts.kind.as_str(), self.name(), &self.prefix);
        let mut operations = Vec::new();
        if self.facts.verbs.contains(Verb::DeleteCollection) {
            operations.push(Operation {
                request: Some(Body::DeleteOptions),
                response: Body::Status,
                parameters: DELETE_COLLECTION,
                ..self.operation(
                    "delete",
                    "deletecollection",
                    format!("delete{prefix}Collection{name}"),
                    format!("delete collection of {kind}"),
                )
            });
        }
        if self.facts.verbs.contains(Verb::List) {
            operations.push(self.list(Scope::Place));
        }
        if self.facts.verbs.contains(Verb::Create) {
            operations.push(Operation {
                request: Some(self.body()),
                also: &["201", "202"],
                parameters: WRITE,
                ..self.operation(
                    "post",
                    "post",
                    format!("create{prefix}{name}"),
                    format!("create {} {kind}", article(kind)),
                )
            });
        }
        operations
    }

    fn one(&self) -> Vec<Operation> {
        let (kind, name, prefix) = (self.facts.kind.as_str(), self.name(), &self.prefix);
        let mut operations = Vec::new();
        if self.facts.verbs.contains(Verb::Delete) {
            operations.push(Operation {
                request: Some(Body::DeleteOptions),
                response: Body::Status,
                also: &["202"],
                parameters: DELETE,
                ..self.operation(
                    "delete",
                    "delete",
                    format!("delete{prefix}{name}"),
                    format!("delete {} {kind}", article(kind)),
                )
            });
        }
        if self.facts.verbs.contains(Verb::Get) {
            operations.push(self.operation(
                "get",
                "get",
                format!("read{prefix}{name}"),
                format!("read the specified {kind}"),
            ));
        }
        operations.extend(self.writes(&name, kind, self.body(), self.kind(), self.facts.verbs));
        operations
    }

    fn writes(
        &self,
        name: &str,
        of: &str,
        body: Body,
        kind: (String, String, String),
        verbs: skiff_kinds::Verbs,
    ) -> Vec<Operation> {
        let prefix = &self.prefix;
        let mut operations = Vec::new();
        if verbs.contains(Verb::Patch) {
            operations.push(Operation {
                request: Some(Body::Patch),
                response: body.clone(),
                also: &["201"],
                parameters: PATCH,
                kind: kind.clone(),
                ..self.operation("patch", "patch", format!("patch{prefix}{name}"), format!("partially update {of}"))
            });
        }
        if verbs.contains(Verb::Update) {
            operations.push(Operation {
                request: Some(body.clone()),
                response: body,
                also: &["201"],
                parameters: WRITE,
                kind,
                ..self.operation("put", "put", format!("replace{prefix}{name}"), format!("replace {of}"))
            });
        }
        operations
    }

    fn list(&self, scope: Scope) -> Operation {
        let (kind, prefix) = (self.facts.kind.as_str(), &self.prefix);
        let (id, parameters) = match scope {
            Scope::All => (format!("list{prefix}{kind}ForAllNamespaces"), LIST),
            _ => (format!("list{prefix}{}", self.name()), LIST),
        };
        Operation {
            response: self.list_body(),
            parameters,
            streams: true,
            ..self.operation("get", "list", id, format!("list or watch objects of kind {kind}"))
        }
    }

    fn watch(&self, scope: Scope) -> Operation {
        let (kind, prefix, name) = (self.facts.kind.as_str(), &self.prefix, self.name());
        let (action, id) = match scope {
            Scope::All => ("watchlist", format!("watch{prefix}{kind}ListForAllNamespaces")),
            Scope::Place => ("watchlist", format!("watch{prefix}{name}List")),
            Scope::One => ("watch", format!("watch{prefix}{name}")),
        };
        Operation {
            response: Body::WatchEvent,
            parameters: LIST,
            streams: true,
            ..self.operation(
                "get",
                action,
                id,
                format!("watch objects of kind {kind}; prefer the watch parameter of a list"),
            )
        }
    }

    fn subresource(&self, subresource: &Subresource) -> Vec<Operation> {
        if matches!(subresource.name.as_str(), "exec" | "attach" | "portforward" | "proxy") {
            return self.connect(subresource, "");
        }
        let of = self.facts.kind.as_str();
        let sub = capital(subresource.name.as_str());
        let (group, version) = split(subresource.api_version.as_str());
        let kind = (group.to_owned(), version.to_owned(), subresource.kind.as_str().to_owned());
        let body = match subresource.ty {
            Some(_) if self.custom && !subresource.foreign => self.body(),
            ty => ty.map_or(Body::Text, Body::Object),
        };
        let name = format!("{}{sub}", self.name());
        let sentence = format!("{} of the specified {of}", subresource.name.as_str());
        let prefix = &self.prefix;
        let mut operations = Vec::new();
        if subresource.verbs.contains(Verb::Create) {
            operations.push(Operation {
                request: Some(body.clone()),
                response: body.clone(),
                also: &["201", "202"],
                parameters: WRITE,
                kind: kind.clone(),
                ..self.operation("post", "post", format!("create{prefix}{name}"), format!("create {sentence}"))
            });
        }
        if subresource.verbs.contains(Verb::Get) {
            let body = if subresource.name == *"log" { Body::Text } else { body.clone() };
            operations.push(Operation {
                response: body,
                kind: kind.clone(),
                ..self.operation("get", "get", format!("read{prefix}{name}"), format!("read {sentence}"))
            });
        }
        operations.extend(self.writes(&name, &sentence, body, kind, subresource.verbs));
        operations
    }

    fn connect(&self, subresource: &Subresource, suffix: &str) -> Vec<Operation> {
        let of = self.facts.kind.as_str();
        let sub = capital(match subresource.name.as_str() {
            "portforward" => "portforward",
            other => other,
        });
        let methods: &[&str] = if subresource.name == *"proxy" { &PROXY_METHODS } else { &["get", "post"] };
        let kind = match subresource.name.as_str() {
            "proxy" => format!("{of}ProxyOptions"),
            "portforward" => "PodPortForwardOptions".to_owned(),
            name => format!("Pod{}Options", capital(name)),
        };
        methods
            .iter()
            .map(|method| {
                let verb = method.to_ascii_uppercase();
                Operation {
                    response: Body::Text,
                    kind: (self.facts.group.as_str().to_owned(), self.facts.version.as_str().to_owned(), kind.clone()),
                    ..self.operation(
                        method,
                        "connect",
                        format!("connect{}{}{}{sub}{suffix}", self.prefix, capital(method), self.name()),
                        format!("connect {verb} requests to {} of {of}", subresource.name.as_str()),
                    )
                }
            })
            .collect()
    }
}

fn split(api_version: &str) -> (&str, &str) {
    api_version.split_once('/').unwrap_or(("", api_version))
}

fn article(kind: &str) -> &'static str {
    if kind.starts_with(['A', 'E', 'I', 'O']) { "an" } else { "a" }
}
