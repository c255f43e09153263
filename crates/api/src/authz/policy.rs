//! The roles and bindings that every cluster begins with.
//!
//! The facts are those of upstream's bootstrap policy, so that a manifest that binds
//! `system:auth-delegator` or `view` means here what it means there. What becomes of them at later
//! starts is in [`super::reconcile`].

use skiff_object::Tree;

/// Says that the server may add to the object at its start.
pub const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";
const API_VERSION: &str = "rbac.authorization.k8s.io/v1";
const GROUP: &str = "rbac.authorization.k8s.io";
const ROLES: &str = include_str!("roles.txt");

/// An object of the bootstrap policy with the place it belongs to.
#[derive(Clone, Debug)]
pub struct PolicyObject {
    /// `clusterroles`, `clusterrolebindings`, `roles` or `rolebindings`.
    pub plural: &'static str,
    /// Empty for the cluster's own.
    pub namespace: &'static str,
    /// The object.
    pub object: Tree,
}

/// Everything, roles before the bindings that name them.
pub fn objects() -> Vec<PolicyObject> {
    let mut objects: Vec<PolicyObject> = cluster_roles()
        .into_iter()
        .map(|object| PolicyObject { plural: "clusterroles", namespace: "", object })
        .collect();
    objects.extend(cluster_role_bindings());
    objects.extend(namespaced());
    objects
}

/// The cluster roles. Those that aggregate others carry their rules already, so that they hold
/// before the aggregation controller has run.
fn cluster_roles() -> Vec<Tree> {
    let mut roles: Vec<ParsedRole> = Vec::new();
    for line in ROLES.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
        match line.strip_prefix("  ") {
            Some(line) => {
                if let Some(role) = roles.last_mut() {
                    role.rules.push(rule(line));
                }
            }
            None => roles.push(ParsedRole::from(line)),
        }
    }
    // From the inside out: view into edit into admin.
    for from in ["view", "edit", "admin"] {
        let gathered: Vec<Tree> =
            roles.iter().filter(|role| role.into == Some(from)).flat_map(|role| role.rules.clone()).collect();
        for role in roles.iter_mut().filter(|role| role.from == Some(from)) {
            role.rules = gathered.clone();
        }
    }
    roles.into_iter().map(ParsedRole::into_tree).collect()
}

struct ParsedRole {
    name: &'static str,
    /// The role it is gathered into.
    into: Option<&'static str>,
    /// The gathering it is made of.
    from: Option<&'static str>,
    rules: Vec<Tree>,
}

impl ParsedRole {
    fn from(line: &'static str) -> Self {
        let mut words = line.split(' ');
        let mut role = Self { name: words.next().unwrap_or_default(), into: None, from: None, rules: Vec::new() };
        for word in words {
            match word.split_at(1) {
                (">", into) => role.into = Some(into),
                (_, from) => role.from = Some(from),
            }
        }
        role
    }

    fn into_tree(self) -> Tree {
        let mut tree = object("ClusterRole", self.name, "");
        let label = |of: &str| format!("rbac.authorization.k8s.io/aggregate-to-{of}");
        if let Some(into) = self.into
            && let Some(labels) = tree.at_mut(&["metadata", "labels"])
        {
            labels.ensure_map().insert(label(into), "true");
        }
        if let Some(from) = self.from {
            let mut selector = Tree::map();
            selector.ensure_map().insert("matchLabels", Tree::map());
            if let Some(labels) = selector.get_mut("matchLabels") {
                labels.ensure_map().insert(label(from), "true");
            }
            tree.set(&["aggregationRule", "clusterRoleSelectors"], vec![selector]);
        }
        tree.set(&["rules"], self.rules);
        tree
    }
}

fn rule(line: &str) -> Tree {
    let mut tree = Tree::map();
    if line == "events" {
        tree.set(&["verbs"], strings(["create", "patch", "update"]));
        tree.set(&["apiGroups"], strings(["", "events.k8s.io"]));
        tree.set(&["resources"], strings(["events"]));
        return tree;
    }
    let mut words = line.split(' ').map(|word| word.split(','));
    let mut next = || words.next().into_iter().flatten();
    let verbs = next().flat_map(|verb| match verb {
        "read" => vec!["get", "list", "watch"],
        "change" => vec!["create", "delete", "deletecollection", "patch", "update"],
        other => vec![other],
    });
    tree.set(&["verbs"], strings(verbs));
    let groups: Vec<&str> = next().map(|group| if group == "core" { "" } else { group }).collect();
    let resources: Vec<&str> = next().collect();
    if groups == ["url"] {
        tree.set(&["nonResourceURLs"], strings(resources));
        return tree;
    }
    tree.set(&["apiGroups"], strings(groups));
    tree.set(&["resources"], strings(resources));
    let names: Vec<&str> = next().collect();
    if !names.is_empty() {
        tree.set(&["resourceNames"], strings(names));
    }
    tree
}

fn strings<'a>(items: impl IntoIterator<Item = &'a str>) -> Tree {
    Tree::List(items.into_iter().map(Tree::from).collect())
}

fn object(kind: &str, name: &str, namespace: &str) -> Tree {
    let mut tree = Tree::map();
    tree.set(&["apiVersion"], API_VERSION);
    tree.set(&["kind"], kind);
    tree.set(&["metadata", "name"], name);
    if !namespace.is_empty() {
        tree.set(&["metadata", "namespace"], namespace);
    }
    tree.set(&["metadata", "labels", "kubernetes.io/bootstrapping"], "rbac-defaults");
    tree.set(&["metadata", "annotations", AUTOUPDATE], "true");
    tree
}

/// A subject of a binding.
enum Subject {
    Group(&'static str),
    User(&'static str),
    ServiceAccount(&'static str),
}

impl Subject {
    fn into_tree(self) -> Tree {
        let mut tree = Tree::map();
        let (kind, name) = match self {
            Self::Group(name) => ("Group", name),
            Self::User(name) => ("User", name),
            Self::ServiceAccount(name) => ("ServiceAccount", name),
        };
        if kind == "ServiceAccount" {
            tree.set(&["namespace"], "kube-system");
        } else {
            tree.set(&["apiGroup"], GROUP);
        }
        tree.set(&["kind"], kind);
        tree.set(&["name"], name);
        tree
    }
}

fn binding(kind: &str, name: &str, namespace: &str, role: (&str, &str), subjects: Vec<Subject>) -> Tree {
    let mut tree = object(kind, name, namespace);
    tree.set(&["roleRef", "apiGroup"], GROUP);
    tree.set(&["roleRef", "kind"], role.0);
    tree.set(&["roleRef", "name"], role.1);
    if !subjects.is_empty() {
        tree.set(&["subjects"], subjects.into_iter().map(Subject::into_tree).collect::<Vec<_>>());
    }
    tree
}

fn cluster_role_bindings() -> Vec<PolicyObject> {
    let everybody = || vec![Subject::Group("system:authenticated"), Subject::Group("system:unauthenticated")];
    let mut bindings = vec![
        ("cluster-admin", vec![Subject::Group("system:masters")]),
        ("system:monitoring", vec![Subject::Group("system:monitoring")]),
        ("system:discovery", vec![Subject::Group("system:authenticated")]),
        ("system:basic-user", vec![Subject::Group("system:authenticated")]),
        ("system:public-info-viewer", everybody()),
        ("system:node-proxier", vec![Subject::User("system:kube-proxy")]),
        ("system:kube-controller-manager", vec![Subject::User("system:kube-controller-manager")]),
        ("system:kube-dns", vec![Subject::ServiceAccount("kube-dns")]),
        ("system:kube-scheduler", vec![Subject::User("system:kube-scheduler")]),
        ("system:volume-scheduler", vec![Subject::User("system:kube-scheduler")]),
        // Nobody has this: the Node authorizer decides for nodes.
        ("system:node", Vec::new()),
        ("system:service-account-issuer-discovery", vec![Subject::Group("system:serviceaccounts")]),
    ];
    let controllers = ROLES.lines().filter(|line| line.starts_with("system:controller:"));
    bindings.extend(controllers.map(|name| (name, vec![Subject::ServiceAccount(&name["system:controller:".len()..])])));
    bindings
        .into_iter()
        .map(|(name, subjects)| PolicyObject {
            plural: "clusterrolebindings",
            namespace: "",
            object: binding("ClusterRoleBinding", name, "", ("ClusterRole", name), subjects),
        })
        .collect()
}

/// Roles within `kube-system` and `kube-public`, each with its rules and who has it.
fn namespaced() -> Vec<PolicyObject> {
    const SYSTEM: &str = "kube-system";
    type Row = (&'static str, &'static str, &'static [&'static str], fn() -> Vec<Subject>);
    let rows: [Row; 8] = [
        (
            SYSTEM,
            "extension-apiserver-authentication-reader",
            &["read core configmaps extension-apiserver-authentication"],
            || vec![Subject::User("system:kube-controller-manager"), Subject::User("system:kube-scheduler")],
        ),
        (SYSTEM, "system:controller:bootstrap-signer", &["read core secrets"], || {
            vec![Subject::ServiceAccount("bootstrap-signer")]
        }),
        (SYSTEM, "system:controller:cloud-provider", &["create,get,list,patch,update,watch core configmaps"], || {
            vec![Subject::ServiceAccount("cloud-provider")]
        }),
        (SYSTEM, "system:controller:token-cleaner", &["delete,read core secrets", "events"], || {
            vec![Subject::ServiceAccount("token-cleaner")]
        }),
        (
            SYSTEM,
            "system::leader-locking-kube-controller-manager",
            &["watch core configmaps", "get,update core configmaps kube-controller-manager"],
            || {
                vec![
                    Subject::User("system:kube-controller-manager"),
                    Subject::ServiceAccount("kube-controller-manager"),
                ]
            },
        ),
        (
            SYSTEM,
            "system::leader-locking-kube-scheduler",
            &["watch core configmaps", "get,update core configmaps kube-scheduler"],
            || vec![Subject::User("system:kube-scheduler"), Subject::ServiceAccount("kube-scheduler")],
        ),
        (
            "kube-public",
            "system:controller:bootstrap-signer",
            &["read core configmaps", "update core configmaps cluster-info", "events"],
            || vec![Subject::ServiceAccount("bootstrap-signer")],
        ),
        (
            SYSTEM,
            "kube-apiserver-legacy-service-account-token-tracking",
            &["get,update core configmaps kube-apiserver-legacy-service-account-token-tracking"],
            || vec![Subject::User("system:apiserver")],
        ),
    ];
    let mut objects = Vec::new();
    for (namespace, name, rules, _) in &rows {
        let mut role = object("Role", name, namespace);
        role.set(&["rules"], rules.iter().map(|line| rule(line)).collect::<Vec<_>>());
        objects.push(PolicyObject { plural: "roles", namespace, object: role });
    }
    for (namespace, name, _, subjects) in rows {
        // Upstream binds this one under a name that says for whom.
        let binding_name = if name == "extension-apiserver-authentication-reader" {
            "system::extension-apiserver-authentication-reader"
        } else {
            name
        };
        let object = binding("RoleBinding", binding_name, namespace, ("Role", name), subjects());
        objects.push(PolicyObject { plural: "rolebindings", namespace, object });
    }
    objects
}

#[cfg(test)]
mod tests {
    use skiff_object::json;

    use super::*;

    fn find(name: &str) -> Tree {
        cluster_roles().into_iter().find(|role| role.str_at(&["metadata", "name"]) == name).unwrap()
    }

    #[test]
    fn admin_holds_what_edit_and_view_hold() {
        let count = |name: &str| find(name).list_at(&["rules"]).len();
        assert_eq!(count("view"), count("system:aggregate-to-view"));
        assert_eq!(count("edit"), count("view") + count("system:aggregate-to-edit"));
        assert_eq!(count("admin"), count("edit") + count("system:aggregate-to-admin"));
    }

    #[test]
    fn rules_read_as_the_api_writes_them() {
        let text = |name: &str| String::from_utf8(json::encode_untyped(&find(name))).unwrap();
        assert!(text("cluster-admin").contains(r#""apiGroups":["*"]"#));
        assert!(text("system:basic-user").contains(r#""resources":["selfsubjectreviews"]"#));
        assert!(text("system:public-info-viewer").contains("nonResourceURLs"));
        assert!(text("system:certificates.k8s.io:kubelet-serving-approver").contains("resourceNames"));
    }

    #[test]
    fn every_role_that_is_bound_exists() {
        let objects = objects();
        for one in objects.iter().filter(|one| one.plural.ends_with("bindings")) {
            let (kind, role) = (one.object.str_at(&["roleRef", "kind"]), one.object.str_at(&["roleRef", "name"]));
            let exists = objects.iter().any(|other| {
                other.object.str_at(&["kind"]) == kind
                    && other.object.str_at(&["metadata", "name"]) == role
                    && (kind == "ClusterRole" || other.namespace == one.namespace)
            });
            assert!(exists, "{kind} {role}");
        }
    }
}
