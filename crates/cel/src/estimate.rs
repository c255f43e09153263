//! What an expression can cost at most, before it runs: by the sizes of literals and the bounds schemas declare.
//!
//! Which rules a custom resource may have follows from these numbers, so they are upstream's, the odd ones included:
//! a number has size 0 when a schema describes it and 1 when none does.

use std::collections::HashMap;
use std::ops::{Add, Mul};

use crate::ast::{Expr, Fold, Kind, Literal};
use crate::charge::{CHAR_COST, PATTERN_COST};
use crate::check::Checked;
use crate::decl::DeclType;
use crate::env::Env;
use crate::types::Type;

/// The least and the most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CostEstimate {
    /// At least.
    pub min: u64,
    /// At most; `u64::MAX` when nothing bounds it.
    pub max: u64,
}

/// Sizes are counted and bounded as costs are.
type Size = CostEstimate;

impl CostEstimate {
    const UNKNOWN: Self = Self { min: 0, max: u64::MAX };

    const fn fixed(number: u64) -> Self {
        Self { min: number, max: number }
    }

    const fn up_to(max: u64) -> Self {
        Self { min: 0, max }
    }

    fn scale(self, factor: f64) -> Self {
        Self { min: scale(self.min, factor), max: scale(self.max, factor) }
    }

    fn union(self, other: Self) -> Self {
        Self { min: self.min.min(other.min), max: self.max.max(other.max) }
    }
}

impl Add for CostEstimate {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { min: self.min.saturating_add(other.min), max: self.max.saturating_add(other.max) }
    }
}

impl Mul for CostEstimate {
    type Output = Self;

    fn mul(self, other: Self) -> Self {
        Self { min: self.min.saturating_mul(other.min), max: self.max.saturating_mul(other.max) }
    }
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the cast saturates, which is the answer wanted"
)]
fn scale(number: u64, factor: f64) -> u64 {
    (number as f64 * factor).ceil() as u64
}

/// Where a value comes from: a variable and the steps into it. `@items`, `@values`, `@keys` and `@indices` are steps
/// into containers.
type Path = Option<Vec<Box<str>>>;

/// What is known about the entries of a container.
#[derive(Clone, Copy, Debug)]
struct Entry {
    map: bool,
    key: Size,
    value: Size,
}

impl Entry {
    fn union(self, other: Self) -> Self {
        Self { map: self.map, key: self.key.union(other.key), value: self.value.union(other.value) }
    }
}

#[derive(Clone, Debug)]
struct Local {
    name: Box<str>,
    path: Path,
    size: Option<Size>,
    entry: Option<Entry>,
}

struct Coster<'c> {
    env: &'c Env,
    checked: &'c Checked,
    paths: HashMap<usize, Vec<Box<str>>>,
    sizes: HashMap<usize, Size>,
    entries: HashMap<usize, Entry>,
    locals: Vec<Local>,
}

/// An argument of a call.
#[derive(Clone, Copy)]
struct Arg<'e> {
    expr: &'e Expr,
    size: Option<Size>,
}

/// The cost of a call and the size of what it gives.
struct CallEstimate {
    cost: CostEstimate,
    size: Option<Size>,
}

/// The cost of an expression.
pub(crate) fn estimate(env: &Env, expr: &Expr, checked: &Checked) -> CostEstimate {
    let mut coster = Coster {
        env,
        checked,
        paths: HashMap::new(),
        sizes: HashMap::new(),
        entries: HashMap::new(),
        locals: Vec::new(),
    };
    coster.cost(expr)
}

impl Coster<'_> {
    fn cost(&mut self, expr: &Expr) -> CostEstimate {
        match &expr.kind {
            Kind::Literal(_) => CostEstimate::default(),
            Kind::Ident(name) => {
                let path = match self.local(name) {
                    Some(local) => local.path.clone(),
                    None => Some(vec![name.trim_start_matches('.').into()]),
                };
                self.paths.extend(path.map(|path| (expr.id, path)));
                CostEstimate::fixed(1)
            }
            Kind::Select { operand, test: true, .. } => self.cost(operand),
            Kind::Select { operand, field, .. } => {
                let mut sum = self.cost(operand);
                if matches!(self.checked.ty(operand), Type::Map(_) | Type::Object(_)) {
                    sum = sum + CostEstimate::fixed(1);
                }
                self.step(expr, operand, field);
                sum
            }
            Kind::Call { function, target, args } => self.call(expr, function, target.as_deref(), args),
            Kind::List(items) => {
                let mut sum = CostEstimate::fixed(10);
                let mut value = if items.is_empty() { Size::default() } else { Size { min: u64::MAX, max: 0 } };
                for item in items {
                    sum = sum + self.cost(&item.value);
                    value = value.union(self.size_or_unknown(&item.value));
                }
                self.entries.insert(expr.id, Entry { map: false, key: Size::fixed(1), value });
                sum
            }
            Kind::Map(entries) => {
                let mut sum = CostEstimate::fixed(30);
                let start = if entries.is_empty() { Size::default() } else { Size { min: u64::MAX, max: 0 } };
                let (mut key, mut value) = (start, start);
                for entry in entries {
                    sum = sum + self.cost(&entry.key) + self.cost(&entry.value);
                    key = key.union(self.size_or_unknown(&entry.key));
                    value = value.union(self.size_or_unknown(&entry.value));
                }
                self.entries.insert(expr.id, Entry { map: true, key, value });
                sum
            }
            Kind::Struct { fields, .. } => {
                fields.iter().fold(CostEstimate::fixed(40), |sum, field| sum + self.cost(&field.value))
            }
            Kind::Fold(fold) if fold.is_bind() => self.bind(expr, fold),
            Kind::Fold(fold) => self.fold(expr, fold),
        }
    }

    fn local(&self, name: &str) -> Option<&Local> {
        self.locals.iter().rev().find(|local| *local.name == *name)
    }

    fn path(&self, expr: &Expr) -> Path {
        if let Kind::Ident(name) = &expr.kind
            && let Some(local) = self.local(name)
        {
            return local.path.clone();
        }
        self.paths.get(&expr.id).cloned()
    }

    fn step(&mut self, expr: &Expr, operand: &Expr, step: &str) {
        if let Some(mut path) = self.path(operand) {
            path.push(step.into());
            self.paths.insert(expr.id, path);
        }
    }

    /// The type a path leads to.
    fn declared(&self, path: &Path) -> Option<u64> {
        let (variable, steps) = path.as_ref()?.split_first()?;
        let mut decl: &DeclType = self.env.size(variable)?;
        for (index, step) in steps.iter().enumerate() {
            decl = match &**step {
                "@items" | "@values" => decl.items().or_else(|| decl.values())?,
                // Keys are texts without a bound of their own, which upstream takes for none.
                "@keys" => return (decl.values().is_some() && index + 1 == steps.len()).then_some(0),
                field => decl.escaped_field(field).filter(|field| field.exposed())?,
            };
        }
        Some(decl.max_elements().unwrap_or(0))
    }

    fn size(&mut self, expr: &Expr) -> Option<Size> {
        if let Some(size) = self.sizes.get(&expr.id) {
            return Some(*size);
        }
        match &expr.kind {
            Kind::Literal(literal) => {
                return Some(Size::fixed(match literal {
                    Literal::Str(text) => text.chars().count() as u64,
                    Literal::Bytes(octets) => octets.len() as u64,
                    _ => 1,
                }));
            }
            Kind::List(items) => return Some(Size::fixed(items.len() as u64)),
            Kind::Map(entries) => return Some(Size::fixed(entries.len() as u64)),
            _ => {}
        }
        if let Some(max) = self.declared(&self.path(expr)) {
            self.sizes.insert(expr.id, Size::up_to(max));
            return Some(Size::up_to(max));
        }
        if is_scalar(self.checked.ty(expr)) {
            return Some(Size::fixed(1));
        }
        match &expr.kind {
            Kind::Ident(name) => self.local(name)?.size,
            _ => None,
        }
    }

    fn size_or_unknown(&mut self, expr: &Expr) -> Size {
        self.size(expr).unwrap_or(Size::UNKNOWN)
    }

    fn entry(&self, expr: &Expr) -> Option<Entry> {
        if let Some(entry) = self.entries.get(&expr.id) {
            return Some(*entry);
        }
        match &expr.kind {
            Kind::Ident(name) => self.local(name)?.entry,
            _ => None,
        }
    }

    fn copy(&mut self, to: &Expr, from: &Expr) {
        if let Some(size) = self.size(from) {
            self.sizes.insert(to.id, size);
        }
        if let Some(entry) = self.entry(from) {
            self.entries.insert(to.id, entry);
        }
    }

    fn push(&mut self, name: &str, value: &Expr) {
        let local =
            Local { name: name.into(), path: self.path(value), size: self.size(value), entry: self.entry(value) };
        self.locals.push(local);
    }

    fn bind(&mut self, expr: &Expr, fold: &Fold) -> CostEstimate {
        let mut sum = self.cost(&fold.range) + self.cost(&fold.init);
        self.push(&fold.accu, &fold.init);
        sum = sum + self.cost(&fold.result);
        self.copy(expr, &fold.result);
        self.locals.pop();
        sum
    }

    fn fold(&mut self, expr: &Expr, fold: &Fold) -> CostEstimate {
        let mut sum = self.cost(&fold.range) + self.cost(&fold.init);
        let outer = self.locals.len();
        self.push(&fold.accu, &fold.init);
        let entry = self.entry(&fold.range);
        let map = entry.map_or_else(|| !matches!(self.checked.ty(&fold.range), Type::List(_)), |entry| entry.map);
        let path = self.path(&fold.range);
        let (key_step, value_step) = if map { ("@keys", "@values") } else { ("@indices", "@items") };
        let key = (key_step, entry.map(|entry| entry.key));
        let value = (value_step, entry.map(|entry| entry.value));
        let mut variable = |name: &str, (step, size): (&str, Option<Size>)| {
            let mut path = path.clone().unwrap_or_default();
            path.push(step.into());
            self.locals.push(Local { name: name.into(), path: Some(path), size, entry: None });
        };
        match &fold.var2 {
            Some(var2) => {
                variable(&fold.var, key);
                variable(var2, value);
            }
            None => variable(&fold.var, if map { key } else { value }),
        }
        let round = self.cost(&fold.condition) + self.cost(&fold.step);
        self.locals.truncate(outer + 1);
        sum = sum + self.cost(&fold.result);
        self.locals.truncate(outer);
        let rounds = self.size_or_unknown(&fold.range);
        match &fold.init.kind {
            Kind::Literal(_) => {
                if let Some(size) = self.size(&fold.init) {
                    self.sizes.insert(expr.id, size);
                }
            }
            Kind::List(_) | Kind::Map(_) => {
                self.sizes.insert(expr.id, rounds);
                if let Some(entry) = self.entry(&fold.step) {
                    self.entries.insert(expr.id, entry);
                }
            }
            _ => {}
        }
        sum + rounds * round
    }

    fn call(&mut self, expr: &Expr, function: &str, target: Option<&Expr>, args: &[Expr]) -> CostEstimate {
        if let ("dyn", [arg]) = (function, args) {
            let cost = self.cost(arg) + CostEstimate::fixed(1);
            self.copy(expr, arg);
            return cost;
        }
        let mut costs = Vec::with_capacity(args.len());
        let mut nodes = Vec::with_capacity(args.len());
        for arg in args {
            costs.push(self.cost(arg));
            nodes.push(Arg { expr: arg, size: self.size(arg) });
        }
        let mut sum = CostEstimate::default();
        let target = target.map(|target| {
            sum = self.cost(target);
            Arg { expr: target, size: self.size(target) }
        });
        let overloads = self.checked.overloads(expr).to_vec();
        if overloads.is_empty() {
            return CostEstimate::default();
        }
        let mut total = CostEstimate { min: u64::MAX, max: 0 };
        let mut size = None;
        for overload in overloads {
            let estimate = self.overload(expr, function, overload, target, &nodes, &costs);
            total = total.union(estimate.cost);
            size = match (size, estimate.size) {
                (Some(a), Some(b)) => Some(Size::union(a, b)),
                (a, b) => a.or(b),
            };
            let step = match overload {
                "index_list" => "@items",
                "index_map" => "@values",
                _ => "",
            };
            if let (false, [container, ..]) = (step.is_empty(), args) {
                size = self.entry(container).map(|entry| entry.value);
                self.step(expr, container, step);
            }
            if size.is_none() {
                size = self.size(expr);
            }
        }
        if let Some(size) = size {
            self.sizes.insert(expr.id, size);
        }
        sum + total
    }

    /// The cost of one way of calling, arguments included.
    fn overload(
        &mut self,
        expr: &Expr,
        function: &str,
        overload: &str,
        target: Option<Arg<'_>>,
        args: &[Arg<'_>],
        costs: &[CostEstimate],
    ) -> CallEstimate {
        let spent = costs.iter().fold(CostEstimate::default(), |sum, cost| sum + *cost);
        if let Some(estimate) = self.kubernetes(function, overload, target, args) {
            return CallEstimate { cost: estimate.cost + spent, size: estimate.size };
        }
        let known = |arg: Arg<'_>| arg.size.unwrap_or(Size::UNKNOWN);
        let plain = |cost: CostEstimate| CallEstimate { cost: cost + spent, size: None };
        match (overload, args) {
            ("string_format", _) if target.is_some() => plain(target.map_or(Size::UNKNOWN, known).scale(CHAR_COST)),
            ("string_to_bytes", [arg]) => {
                let size = known(*arg);
                let result = Size { min: size.min, max: size.max.saturating_mul(4) };
                CallEstimate { cost: size.scale(CHAR_COST) + spent, size: Some(result) }
            }
            ("bytes_to_string", [arg]) => {
                let size = known(*arg);
                CallEstimate {
                    cost: size.scale(CHAR_COST) + spent,
                    size: Some(Size { min: size.min / 4, max: size.max }),
                }
            }
            ("strings_quote", [arg]) => {
                let size = known(*arg);
                let result = Size { min: size.min + 2, max: size.max.saturating_mul(2).saturating_add(2) };
                CallEstimate { cost: size.scale(CHAR_COST) + spent, size: Some(result) }
            }
            ("starts_with_string" | "ends_with_string", [arg]) => plain(known(*arg).scale(CHAR_COST)),
            ("in_list", [_, list]) => plain(known(*list)),
            ("matches_string", [pattern]) => {
                let text = target.map_or(Size::UNKNOWN, known) + Size::fixed(1);
                plain(text.scale(CHAR_COST) * known(*pattern).scale(PATTERN_COST))
            }
            ("contains_string", [part]) => {
                plain(target.map_or(Size::UNKNOWN, known).scale(CHAR_COST) * known(*part).scale(CHAR_COST))
            }
            ("logical_or" | "logical_and", _) => {
                // A chain is one call here and a tree of calls upstream; both may end with the first term.
                let min = costs.first().map_or(0, |first| first.min);
                CallEstimate { cost: CostEstimate { min, max: spent.max }, size: None }
            }
            ("conditional", [_, yes, no]) => {
                let size = known(*yes).union(known(*no));
                if let (Some(a), Some(b)) = (self.entry(yes.expr), self.entry(no.expr)) {
                    self.entries.insert(expr.id, a.union(b));
                }
                CallEstimate { cost: costs[0] + costs[1].union(costs[2]), size: Some(size) }
            }
            ("add_string" | "add_bytes" | "add_list", [a, b]) => {
                let size = known(*a) + known(*b);
                if let (Some(a), Some(b)) = (self.entry(a.expr), self.entry(b.expr)) {
                    self.entries.insert(expr.id, a.union(b));
                }
                let cost = if overload == "add_list" { CostEstimate::fixed(1) } else { size.scale(CHAR_COST) };
                CallEstimate { cost: cost + spent, size: Some(size) }
            }
            (id, [a, b]) if compares_by_size(id) => {
                let smaller = known(*a).max.min(known(*b).max);
                plain(CostEstimate { min: u64::from(smaller > 0), max: smaller }.scale(CHAR_COST))
            }
            _ => plain(CostEstimate::fixed(1)),
        }
    }

    /// What Kubernetes says of its own functions and of those of extensions.
    fn kubernetes(
        &mut self,
        function: &str,
        overload: &str,
        target: Option<Arg<'_>>,
        args: &[Arg<'_>],
    ) -> Option<CallEstimate> {
        let known = |arg: Arg<'_>| arg.size.unwrap_or(Size::UNKNOWN);
        let cost = |cost: CostEstimate| Some(CallEstimate { cost, size: None });
        let both = |cost: CostEstimate, size: Size| Some(CallEstimate { cost, size: Some(size) });
        let on = target.map(known);
        match function {
            "check" => cost(CostEstimate::fixed(350_000)),
            "serviceAccount"
            | "path"
            | "group"
            | "resource"
            | "subresource"
            | "namespace"
            | "name"
            | "allowed"
            | "reason"
            | "error"
            | "errored"
            | "masked"
            | "prefixLength"
            | "family"
            | "isUnspecified"
            | "isLoopback"
            | "isLinkLocalMulticast"
            | "isLinkLocalUnicast"
            | "isGlobalUnicast"
            | "format.named"
            | "sign"
            | "asInteger"
            | "isInteger"
            | "asApproximateFloat"
            | "isGreaterThan"
            | "isLessThan"
            | "compareTo"
            | "add"
            | "sub"
            | "major"
            | "minor"
            | "patch"
            | "getScheme"
            | "getHostname"
            | "getHost"
            | "getPort"
            | "getEscapedPath"
            | "getQuery" => cost(CostEstimate::fixed(1)),
            "fieldSelector" | "labelSelector" => {
                let length = known(*args.first()?);
                cost(CostEstimate::fixed(10) + length.scale(CHAR_COST) + length.scale(0.5).scale(50.0))
            }
            "isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf" => {
                let (target, size) = (target?, on?);
                let Type::List(item) = self.checked.ty(target.expr).clone() else {
                    return cost(size.scale(CHAR_COST));
                };
                let mut each = CostEstimate::fixed(1);
                if matches!(*item, Type::String | Type::Bytes) {
                    let mut path = self.path(target.expr).unwrap_or_default();
                    let declared = if path.is_empty() {
                        None
                    } else {
                        path.push("@items".into());
                        self.declared(&Some(path))
                    };
                    each = each + declared.map_or(Size::UNKNOWN, Size::up_to).scale(CHAR_COST);
                }
                cost(size * each)
            }
            "url" | "jsonpatch.escapeKey" => {
                let size = known(*args.first()?);
                both(size.scale(CHAR_COST), size)
            }
            "lowerAscii" | "upperAscii" | "substring" | "trim" => both(on?.scale(CHAR_COST), on?),
            "replace" => {
                let [from, to, ..] = args else { return None };
                both(on?.scale(2.0 * CHAR_COST), replaced(on?, known(*from), known(*to)))
            }
            "split" => {
                let limit = args.get(1).and_then(|arg| match arg.expr.kind {
                    Kind::Literal(Literal::Int(number)) => u64::try_from(number).ok(),
                    _ => None,
                });
                both(on?.scale(2.0 * CHAR_COST), Size::up_to(limit.unwrap_or(on?.max)))
            }
            "join" => {
                let size = self.joined(target?, on?, args.first().map(|arg| known(*arg)));
                both(size.scale(CHAR_COST), size)
            }
            "find" | "findAll" => {
                let text = (on? + Size::fixed(1)).scale(CHAR_COST);
                both(text * known(*args.first()?).scale(PATTERN_COST), Size::up_to(on?.max))
            }
            "ip" if overload == "cidr_ip" => cost(CostEstimate::fixed(1)),
            "cidr" | "isIP" | "isCIDR" | "ip" | "quantity" | "isQuantity" | "semver" | "isSemver" => {
                cost(known(*args.first()?).scale(CHAR_COST))
            }
            "ip.isCanonical" => cost(known(*args.first()?).scale(2.0 * CHAR_COST)),
            "containsIP" | "containsCIDR" => {
                let address = Size { min: 4, max: 16 };
                let mut sum = (address + address).scale(CHAR_COST);
                if function == "containsCIDR" {
                    sum = sum + address.scale(CHAR_COST) + CostEstimate::fixed(1);
                }
                if matches!(overload, "cidr_contains_ip_string" | "cidr_contains_cidr_string") {
                    sum = sum + known(*args.first()?).scale(CHAR_COST);
                }
                cost(sum)
            }
            // The pattern behind a format is taken for 128 characters.
            "validate" => cost(known(*args.first()?).scale(CHAR_COST).scale(128.0 * PATTERN_COST)),
            "sets.contains" | "sets.intersects" | "sets.equivalent" => {
                let [a, b] = args else { return None };
                let times = if function == "sets.equivalent" { 2.0 } else { 1.0 };
                cost((known(*a) * known(*b)).scale(times) + CostEstimate::fixed(1))
            }
            "slice" | "lists.range" | "reverse" | "flatten" | "distinct" | "sort" | "@sortByAssociatedKeys" => {
                self.lists(function, target, args)
            }
            "_==_" => {
                let [a, _] = args else { return None };
                match self.checked.ty(a.expr) {
                    Type::Opaque(name, _) if matches!(&**name, "net.IP" | "net.CIDR") => cost(CostEstimate::fixed(1)),
                    Type::Object(name) if &**name == "kubernetes.URL" => {
                        cost(CostEstimate { min: 1, max: a.size.map_or(1, |size| size.max) }.scale(CHAR_COST))
                    }
                    Type::Object(name) if &**name == "kubernetes.NamedFormat" => {
                        cost(CostEstimate { min: 1, max: 64 }.scale(CHAR_COST))
                    }
                    Type::Object(name) if name.starts_with("kubernetes.") && self.env.field(name, "").is_none() => {
                        cost(CostEstimate::fixed(1))
                    }
                    _ => None,
                }
            }
            _ => None,
        }
    }

    fn lists(&mut self, function: &str, target: Option<Arg<'_>>, args: &[Arg<'_>]) -> Option<CallEstimate> {
        let known = |arg: Arg<'_>| arg.size.unwrap_or(Size::UNKNOWN);
        let number = |arg: Option<&Arg<'_>>, otherwise: u64| match arg.map(|arg| &arg.expr.kind) {
            Some(Kind::Literal(Literal::Int(number))) => u64::try_from(*number).unwrap_or(0),
            _ => otherwise,
        };
        let square = |size: Size, ty: &Type| {
            let text = matches!(ty, Type::List(item) if matches!(**item, Type::String | Type::Bytes));
            (size * size, if text { 2.0 + CHAR_COST } else { 2.0 })
        };
        let (size, factor) = match function {
            "slice" => {
                let end = number(args.get(1), known(target?).max);
                (Size::fixed(end.saturating_sub(number(args.first(), 0))), 1.0)
            }
            "lists.range" => (Size::fixed(number(args.first(), u64::MAX)), 1.0),
            #[expect(clippy::cast_precision_loss, reason = "an unbounded depth is unbounded as a double, too")]
            "flatten" => (known(target?), if args.is_empty() { 1.0 } else { number(args.first(), u64::MAX) as f64 }),
            "distinct" => square(known(target?), &Type::Dyn),
            "sort" => square(known(target?), self.checked.ty(target?.expr)),
            "@sortByAssociatedKeys" => square(known(*args.first()?), self.checked.ty(args.first()?.expr)),
            _ => (known(target?), 1.0),
        };
        Some(CallEstimate { cost: size.scale(factor) + CostEstimate::fixed(11), size: Some(size) })
    }

    fn joined(&mut self, target: Arg<'_>, list: Size, separator: Option<Size>) -> Size {
        let mut size = Size::default();
        if let Type::List(_) = self.checked.ty(target.expr) {
            let declared = self.path(target.expr).and_then(|mut path| {
                path.push("@items".into());
                self.declared(&Some(path))
            });
            size = list * declared.map_or(Size::UNKNOWN, Size::up_to);
        }
        match separator {
            None => size,
            Some(separator) => {
                let gaps = Size { min: list.min.saturating_sub(1), max: list.max.saturating_sub(1) };
                size + separator * gaps
            }
        }
    }
}

fn compares_by_size(overload: &str) -> bool {
    matches!(overload, "equals" | "not_equals")
        || (overload.starts_with("less_") || overload.starts_with("greater_"))
            && (overload.ends_with("_string") || overload.ends_with("_bytes"))
}

fn is_scalar(ty: &Type) -> bool {
    match ty {
        Type::Bool | Type::Double | Type::Duration | Type::Int | Type::Timestamp | Type::Uint => true,
        other => other.unwrap_optional().is_some_and(is_scalar),
    }
}

/// The size of a text with one part replaced by another wherever it stands.
fn replaced(text: Size, from: Size, to: Size) -> Size {
    let (mut count, mut kept) = (Size::default(), Size::default());
    if from.min == 0 {
        // Nothing stands around every character.
        count.max = text.max.saturating_add(1);
        kept.max = text.max;
    } else if to.max <= from.min {
        kept.max = text.max;
    } else {
        count.max = text.max.div_ceil(from.min);
    }
    if from.max == 0 {
        count.min = text.min.saturating_add(1);
        kept.min = text.min;
    } else if from.max <= to.min {
        kept.min = text.min;
    } else {
        count.min = text.min.div_ceil(from.max);
    }
    count * to + kept
}
