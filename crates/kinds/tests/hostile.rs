//! Every kind against objects that nobody sane would write: whatever fits the types must be judged,
//! shown and stored without a panic.

use proptest::prelude::*;
use skiff_kinds::Kind;
use skiff_object::schema::{Or, Scalar, Schema, Shape};
use skiff_object::time::Time;
use skiff_object::{Key, Map, Tree, TypeId};

/// Texts that mean something somewhere, and texts that mean nothing anywhere.
const TEXTS: &[&str] = &[
    "",
    "a",
    "A",
    "a.b",
    "a.b.c",
    "a/b",
    "example.com/x",
    "-",
    "..",
    "../x",
    "/",
    "//",
    "/a//b/",
    "/proc",
    "*",
    "*/*",
    "*/x",
    "10.0.0.1",
    "010.0.0.1",
    "::1",
    "::ffff:1.2.3.4",
    "10.0.0.0/8",
    "10.0.0.1/8",
    "::/0",
    "-1",
    "0",
    "1",
    "99999999999",
    "50%",
    "101%",
    "%",
    "é",
    "💥",
    "a\u{0}b",
    "a\nb",
    "=",
    "In",
    "Exists",
    "NotIn",
    "Gt",
    "Lt",
    "DoesNotExist",
    "Always",
    "Never",
    "OnFailure",
    "None",
    "ClusterIP",
    "ExternalName",
    "LoadBalancer",
    "NodePort",
    "Local",
    "Cluster",
    "TCP",
    "UDP",
    "IPv4",
    "IPv6",
    "FQDN",
    "Exact",
    "Equivalent",
    "Fail",
    "Ignore",
    "Allow",
    "Deny",
    "Localhost",
    "Queue",
    "Limited",
    "Exempt",
    "exempt",
    "User",
    "Group",
    "ServiceAccount",
    "Indexed",
    "Resource",
    "Utilization",
    "Pods",
    "Delete",
    "Retain",
    "Filesystem",
    "Block",
    "ReadWriteOnce",
    "Container",
    "Pod",
    "All",
    "ExactCount",
    "Succeeded",
    "kubernetes.io/hostname",
    "rbac.authorization.k8s.io",
    "v1",
    "v1beta1",
    "CREATE",
    "https://u:p@h/p?q#f",
    "https://",
    "* * * * *",
    "TZ=UTC * * * * *",
    "@daily",
    "Etc/Unknown",
    "metadata.labels['a']",
    "status.podIP",
    "limits.cpu",
    "-----BEGIN CERTIFICATE REQUEST-----",
    "system-x",
    "resource.kubernetes.io/pod-claim-name",
];
const QUANTITIES: &[&str] = &["0", "1", "-1", "100m", "1Gi", "2Mi", "1n", "9e18", "1.5"];
const KEYS: &[&str] = &[
    "a",
    "cpu",
    "memory",
    "hugepages-2Mi",
    "hugepages-",
    "hugepages-0",
    "storage",
    "requests.storage",
    "pods",
    "a.b/c",
    "x y",
    "tls.crt",
    "",
];
const NUMBERS: &[i64] = &[0, 1, -1, 2, 3, 7, 80, 443, 600, 1_000, 65_535, 65_536, 2_147_483_647, -2_147_483_648];
const LONG_NUMBERS: &[i64] = &[i64::MAX, i64::MIN, 1 << 32];

/// How deep objects go.
const DEPTH_MAX: usize = 9;

struct Maker<'a> {
    schema: &'a Schema,
    state: u64,
}

impl Maker<'_> {
    fn next(&mut self, below: usize) -> usize {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        usize::try_from(self.state % below as u64).unwrap_or(0)
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.next(from.len())]
    }

    fn value(&mut self, ty: TypeId, depth: usize) -> Tree {
        let schema = self.schema;
        match &schema.get(ty).shape {
            Shape::Struct(shape) => {
                let mut map = Map::new();
                for field in &shape.fields {
                    if depth < DEPTH_MAX && self.next(3) != 0 {
                        map.insert(field.name.clone(), self.value(field.ty, depth + 1));
                    }
                }
                Tree::Map(map)
            }
            Shape::Map { value, .. } => {
                let count = self.next(3);
                (0..count)
                    .map(|_| (Key::from(self.pick(KEYS).to_owned()), self.value(*value, depth + 1)))
                    .collect::<Map>()
                    .into()
            }
            Shape::List(list) => {
                let items = if depth < DEPTH_MAX { self.next(4) } else { 0 };
                Tree::List((0..items).map(|_| self.value(list.item, depth + 1)).collect())
            }
            Shape::Either(either) => match (self.next(2), either.or) {
                (0, _) => self.value(either.object, depth + 1),
                (_, Or::Bool) => Tree::Bool(self.next(2) == 0),
                (_, Or::List) => Tree::List(vec![self.value(either.object, depth + 1)]),
                (_, Or::Strings) => Tree::List(vec!["x".into()]),
            },
            Shape::Scalar(scalar) => self.scalar(*scalar),
            Shape::Any => self.pick(TEXTS).into(),
        }
    }

    fn scalar(&mut self, scalar: Scalar) -> Tree {
        match scalar {
            Scalar::String | Scalar::Bytes => self.pick(TEXTS).into(),
            Scalar::Bool => Tree::Bool(self.next(2) == 0),
            Scalar::Int32 => self.pick(NUMBERS).into(),
            Scalar::Int64 if self.next(4) == 0 => self.pick(LONG_NUMBERS).into(),
            Scalar::Int64 => self.pick(NUMBERS).into(),
            Scalar::Double => Tree::Float(0.5),
            Scalar::Quantity => self.pick(QUANTITIES).into(),
            Scalar::IntOrString if self.next(2) == 0 => self.pick(NUMBERS).into(),
            Scalar::IntOrString => self.pick(TEXTS).into(),
            Scalar::Time => "2026-01-02T03:04:05Z".into(),
            Scalar::MicroTime => "2026-01-02T03:04:05.000006Z".into(),
            Scalar::Duration => "1m0s".into(),
            Scalar::FieldsV1 => Tree::map(),
        }
    }
}

/// Whether a field of an error is a path: steps divided by dots, with keys or places in brackets.
fn is_path(field: &str) -> bool {
    let plain = |step: &str| step.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'$'));
    // Upstream makes a step of each resource's name here.
    if ["status.capacity.", "status.allocatable."].iter().any(|amounts| field.starts_with(amounts)) {
        return true;
    }
    // … and of both fields that make a pair here.
    let field = &field.replace(".{topologyKey, whenUnsatisfiable}", "");
    let before_keys = field.split('[').next().unwrap_or("");
    let balanced = field.matches('[').count() >= field.matches(']').count().min(1);
    !field.is_empty() && balanced && before_keys.split('.').all(plain) && !before_keys.ends_with('.')
}

/// All hooks, in the order of a request.
fn judge(kind: &dyn Kind, mut object: Tree, mut other: Tree) {
    let what = kind.facts().kind.as_str();
    for one in [&mut object, &mut other] {
        kind.default(one);
        let once = one.clone();
        kind.default(one);
        assert_eq!(*one, once, "{what}: a second round of defaults changes nothing");
        kind.prepare_create(one);
    }
    let mut errors = kind.validate_create(&object);
    errors.extend(kind.validate_update(&object, &other));
    errors.extend(kind.validate_update(&object, &object));
    for subresource in ["status", "scale", "resize", "ephemeralcontainers", "approval", "finalize"] {
        let mut changed = object.clone();
        kind.prepare_subresource(subresource, &mut changed, &other);
        errors.extend(kind.validate_subresource(subresource, &changed, &other));
    }
    let mut changed = object.clone();
    kind.prepare_update(&mut changed, &other);
    errors.extend(kind.validate_update(&changed, &other));
    for error in &errors {
        assert!(is_path(&error.field), "{what}: {:?} is no path: {error}", error.field);
    }
    let now = Time::parse("2026-01-02T03:04:06Z").expect("a time");
    assert_eq!(kind.row(&object, now).len(), kind.columns().len(), "{what}");
    let _ = kind.warnings(&object, Some(&other));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn nothing_that_fits_the_types_is_too_much(seed in 1_u64..) {
        for kind in skiff_kinds::builtin().iter() {
            let ty = kind.facts().ty;
            let mut maker = Maker { schema: kind.schema(), state: seed };
            let (object, other) = (maker.value(ty, 0), maker.value(ty, 0));
            judge(kind.as_ref(), object, other);
        }
    }
}
