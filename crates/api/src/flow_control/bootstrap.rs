//! The priority levels and flow schemas every cluster has: those it cannot be without, and those
//! that upstream suggests (v1.36).

use skiff_object::{Map, Tree};

/// Says whether the server keeps an object's spec as it is here.
pub(super) const AUTOUPDATE: &str = "apf.kubernetes.io/autoupdate-spec";

/// An object that the server keeps.
pub(super) struct Kept {
    pub(super) plural: &'static str,
    pub(super) name: &'static str,
    /// Whether the server needs it to be as it is.
    pub(super) is_mandatory: bool,
    pub(super) spec: Tree,
}

const LEVELS: &str = "prioritylevelconfigurations";
const SCHEMAS: &str = "flowschemas";

/// All of them.
pub(super) fn objects() -> Vec<Kept> {
    let mut all = vec![
        Kept { plural: LEVELS, name: "exempt", is_mandatory: true, spec: exempt() },
        Kept { plural: LEVELS, name: "catch-all", is_mandatory: true, spec: limited(5, 0, None) },
    ];
    // shares, lendable percent; queues, hand size
    for (name, shares, lendable, queues, hand) in [
        ("system", 30, 33, 64, 6),
        ("node-high", 40, 25, 64, 6),
        ("leader-election", 10, 0, 16, 4),
        ("workload-high", 40, 50, 128, 6),
        ("workload-low", 100, 90, 128, 6),
        ("global-default", 20, 50, 128, 6),
    ] {
        let spec = limited(shares, lendable, Some((queues, hand)));
        all.push(Kept { plural: LEVELS, name, is_mandatory: false, spec });
    }
    all.extend(schemas());
    all
}

fn exempt() -> Tree {
    map([
        ("type", "Exempt".into()),
        ("exempt", map([("nominalConcurrencyShares", 0.into()), ("lendablePercent", 0.into())])),
    ])
}

fn limited(shares: i64, lendable: i64, queuing: Option<(i64, i64)>) -> Tree {
    let response = match queuing {
        None => map([("type", "Reject".into())]),
        Some((queues, hand)) => map([
            ("type", "Queue".into()),
            ("queuing", map([("queues", queues.into()), ("handSize", hand.into()), ("queueLengthLimit", 50.into())])),
        ]),
    };
    map([
        ("type", "Limited".into()),
        (
            "limited",
            map([
                ("nominalConcurrencyShares", shares.into()),
                ("lendablePercent", lendable.into()),
                ("limitResponse", response),
            ]),
        ),
    ])
}

fn schemas() -> Vec<Kept> {
    let everybody = || vec![group("system:unauthenticated"), group("system:authenticated")];
    let nodes = || vec![group("system:nodes")];
    let leases = |verbs: &[&str]| resources(verbs, "coordination.k8s.io", &["leases"], ClusterScope::No);
    let schema = |name, level, precedence, flows, subjects, rules: Rules| Kept {
        plural: SCHEMAS,
        name,
        is_mandatory: matches!(name, "exempt" | "catch-all"),
        spec: flow_schema(level, precedence, flows, subjects, rules),
    };
    let mut leaders = vec![user("system:kube-controller-manager"), user("system:kube-scheduler")];
    leaders.push(accounts_of("kube-system"));
    vec![
        schema("exempt", "exempt", 1, "", vec![group("system:masters")], Rules::everything()),
        schema("catch-all", "catch-all", 10_000, "ByUser", everybody(), Rules::everything()),
        schema(
            "probes",
            "exempt",
            2,
            "",
            everybody(),
            Rules { resources: vec![], paths: vec![paths(&["get"], &["/healthz", "/readyz", "/livez"])] },
        ),
        schema(
            "system-leader-election",
            "leader-election",
            100,
            "ByUser",
            leaders,
            Rules { resources: vec![leases(&["get", "create", "update"])], paths: vec![] },
        ),
        schema(
            "system-node-high",
            "node-high",
            400,
            "ByUser",
            nodes(),
            Rules {
                resources: vec![resources(&["*"], "", &["nodes", "nodes/status"], ClusterScope::Yes), leases(&["*"])],
                paths: vec![],
            },
        ),
        schema("system-nodes", "system", 500, "ByUser", nodes(), Rules::everything()),
        schema(
            "kube-controller-manager",
            "workload-high",
            800,
            "ByNamespace",
            vec![user("system:kube-controller-manager")],
            Rules::everything(),
        ),
        schema(
            "kube-scheduler",
            "workload-high",
            800,
            "ByNamespace",
            vec![user("system:kube-scheduler")],
            Rules::everything(),
        ),
        schema(
            "kube-system-service-accounts",
            "workload-high",
            900,
            "ByNamespace",
            vec![accounts_of("kube-system")],
            Rules::everything(),
        ),
        schema(
            "service-accounts",
            "workload-low",
            9_000,
            "ByUser",
            vec![group("system:serviceaccounts")],
            Rules::everything(),
        ),
        schema("global-default", "global-default", 9_900, "ByUser", everybody(), Rules::everything()),
    ]
}

/// What a schema is about.
struct Rules {
    resources: Vec<Tree>,
    paths: Vec<Tree>,
}

impl Rules {
    fn everything() -> Self {
        Self { resources: vec![resources(&["*"], "*", &["*"], ClusterScope::Yes)], paths: vec![paths(&["*"], &["*"])] }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ClusterScope {
    Yes,
    No,
}

fn flow_schema(level: &str, precedence: i64, flows: &str, subjects: Vec<Tree>, rules: Rules) -> Tree {
    let mut rule = Map::new();
    rule.insert("subjects", subjects);
    if !rules.resources.is_empty() {
        rule.insert("resourceRules", rules.resources);
    }
    if !rules.paths.is_empty() {
        rule.insert("nonResourceRules", rules.paths);
    }
    let mut spec = Map::new();
    spec.insert("priorityLevelConfiguration", map([("name", level.into())]));
    spec.insert("matchingPrecedence", precedence);
    if !flows.is_empty() {
        spec.insert("distinguisherMethod", map([("type", flows.into())]));
    }
    spec.insert("rules", vec![Tree::Map(rule)]);
    Tree::Map(spec)
}

fn user(name: &str) -> Tree {
    map([("kind", "User".into()), ("user", map([("name", name.into())]))])
}

fn group(name: &str) -> Tree {
    map([("kind", "Group".into()), ("group", map([("name", name.into())]))])
}

fn accounts_of(namespace: &str) -> Tree {
    let account = map([("namespace", namespace.into()), ("name", "*".into())]);
    map([("kind", "ServiceAccount".into()), ("serviceAccount", account)])
}

fn resources(verbs: &[&str], group: &str, resources: &[&str], scope: ClusterScope) -> Tree {
    let mut rule = Map::new();
    rule.insert("verbs", list(verbs));
    rule.insert("apiGroups", list(&[group]));
    rule.insert("resources", list(resources));
    if scope == ClusterScope::Yes {
        rule.insert("clusterScope", true);
    }
    rule.insert("namespaces", list(&["*"]));
    Tree::Map(rule)
}

fn paths(verbs: &[&str], urls: &[&str]) -> Tree {
    map([("verbs", list(verbs)), ("nonResourceURLs", list(urls))])
}

fn list(texts: &[&str]) -> Tree {
    texts.iter().map(|text| Tree::from(*text)).collect::<Vec<_>>().into()
}

fn map<const N: usize>(entries: [(&'static str, Tree); N]) -> Tree {
    let mut map = Map::new();
    for (key, value) in entries {
        map.insert(key, value);
    }
    Tree::Map(map)
}
