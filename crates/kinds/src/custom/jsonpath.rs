//! The part of JSONPath that definitions use, as `k8s.io/client-go/util/jsonpath` reads it: fields (a backslash
//! takes the meaning of the next character), indexes, slices, wildcards, descent and filters on one comparison.

use skiff_object::Tree;

/// A path, read.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct JsonPath(Vec<Step>);

#[derive(Clone, PartialEq, Eq, Debug)]
enum Step {
    Field(Box<str>),
    Index(i64),
    /// From, up to.
    Slice(Option<i64>, Option<i64>),
    Every,
    /// This value and everything below it.
    Descend,
    /// `[?(@.type=="Ready")]`; without a comparison, whether the path leads anywhere.
    Where(JsonPath, Option<(Comparison, Box<str>)>),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Comparison {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

const COMPARISONS: [(&str, Comparison); 6] = [
    ("==", Comparison::Equal),
    ("!=", Comparison::Unequal),
    ("<=", Comparison::LessOrEqual),
    (">=", Comparison::GreaterOrEqual),
    ("<", Comparison::Less),
    (">", Comparison::Greater),
];

/// How many values one path may lead to: descent in descent grows quickly.
const FOUND_MAX: usize = 10_000;

impl JsonPath {
    /// Reads a path, with or without braces around it; `None` when it is none.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let mut rest = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')).unwrap_or(text);
        let mut steps = Vec::new();
        while let Some(first) = rest.chars().next() {
            rest = match first {
                '[' => {
                    let end = closing(rest)?;
                    steps.push(bracket(rest.get(1..end)?)?);
                    &rest[end + 1..]
                }
                '.' if rest.starts_with("..") => {
                    steps.push(Step::Descend);
                    &rest[1..]
                }
                '.' | '$' | '@' => &rest[1..],
                '*' => {
                    steps.push(Step::Every);
                    &rest[1..]
                }
                _ => field(rest, &mut steps),
            };
        }
        Some(Self(steps))
    }

    /// Everything the path leads to.
    pub(crate) fn find<'a>(&self, tree: &'a Tree) -> Vec<&'a Tree> {
        let mut found = vec![tree];
        for step in &self.0 {
            found = found.into_iter().flat_map(|tree| step.from(tree)).take(FOUND_MAX).collect();
        }
        found
    }
}

fn field<'a>(text: &'a str, steps: &mut Vec<Step>) -> &'a str {
    let mut name = String::new();
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '\\' => name.extend(letters.next().map(|(_, next)| next)),
            '.' | '[' => {
                steps.push(Step::Field(name.into()));
                return &text[at..];
            }
            other => name.push(other),
        }
    }
    steps.push(Step::Field(name.into()));
    ""
}

/// Where the bracket that opens `text` closes: not within quotes, not within inner brackets.
fn closing(text: &str) -> Option<usize> {
    let (mut depth, mut quote) = (0, None);
    for (at, letter) in text.char_indices() {
        match (quote, letter) {
            (Some(open), letter) if open == letter => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(letter),
            (None, '[') => depth += 1,
            (None, ']') => {
                depth -= 1;
                if depth == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    None
}

fn bracket(inner: &str) -> Option<Step> {
    let inner = inner.trim();
    if let Some(condition) = inner.strip_prefix("?(").and_then(|rest| rest.strip_suffix(')')) {
        for (sign, comparison) in COMPARISONS {
            if let Some((path, value)) = condition.split_once(sign) {
                return Some(Step::Where(JsonPath::parse(path)?, Some((comparison, unquoted(value)))));
            }
        }
        return Some(Step::Where(JsonPath::parse(condition)?, None));
    }
    if inner == "*" {
        return Some(Step::Every);
    }
    if let Ok(index) = inner.parse() {
        return Some(Step::Index(index));
    }
    if let Some((from, to)) = inner.split_once(':').filter(|_| !inner.starts_with(['"', '\''])) {
        let bound = |text: &str| if text.trim().is_empty() { Some(None) } else { text.trim().parse().ok().map(Some) };
        return Some(Step::Slice(bound(from)?, bound(to)?));
    }
    inner.starts_with(['"', '\'']).then(|| Step::Field(unquoted(inner)))
}

fn unquoted(text: &str) -> Box<str> {
    text.trim().trim_matches(['"', '\'']).into()
}

impl Step {
    fn from<'a>(&self, tree: &'a Tree) -> Vec<&'a Tree> {
        let items = || tree.as_list().unwrap_or_default();
        let place = |index: i64| {
            let length = i64::try_from(items().len()).unwrap_or(i64::MAX);
            usize::try_from(if index < 0 { length.saturating_add(index) } else { index }).ok()
        };
        match self {
            Self::Field(name) => tree.get(name).into_iter().collect(),
            Self::Index(index) => place(*index).and_then(|at| items().get(at)).into_iter().collect(),
            Self::Slice(from, to) => {
                let end = to.map_or(items().len(), |to| place(to).unwrap_or(0)).min(items().len());
                let start = from.map_or(0, |from| place(from).unwrap_or(0)).min(end);
                items()[start..end].iter().collect()
            }
            Self::Every => match tree {
                Tree::List(items) => items.iter().collect(),
                Tree::Map(map) => map.values().collect(),
                _ => Vec::new(),
            },
            Self::Descend => {
                let mut all = Vec::new();
                descend(tree, &mut all);
                all
            }
            Self::Where(path, condition) => {
                let fits = |item: &&Tree| {
                    let found = path.find(item);
                    match (found.first(), condition) {
                        (None, _) => false,
                        (Some(_), None) => true,
                        (Some(found), Some((comparison, value))) => compare(found, *comparison, value),
                    }
                };
                items().iter().filter(fits).collect()
            }
        }
    }
}

fn descend<'a>(tree: &'a Tree, all: &mut Vec<&'a Tree>) {
    if all.len() >= FOUND_MAX {
        return;
    }
    all.push(tree);
    match tree {
        Tree::List(items) => items.iter().for_each(|item| descend(item, all)),
        Tree::Map(map) => map.values().for_each(|item| descend(item, all)),
        _ => {}
    }
}

fn compare(found: &Tree, comparison: Comparison, value: &str) -> bool {
    let text = plain(found);
    let order = match (text.parse::<f64>(), value.parse::<f64>()) {
        (Ok(one), Ok(other)) => one.partial_cmp(&other),
        _ => Some(text.as_str().cmp(value)),
    };
    order.is_some_and(|order| match comparison {
        Comparison::Equal => order.is_eq(),
        Comparison::Unequal => order.is_ne(),
        Comparison::Less => order.is_lt(),
        Comparison::LessOrEqual => order.is_le(),
        Comparison::Greater => order.is_gt(),
        Comparison::GreaterOrEqual => order.is_ge(),
    })
}

/// A value as printing shows it: text as it is, anything else as JSON.
pub(crate) fn plain(value: &Tree) -> String {
    match value {
        Tree::Str(text) => text.to_string(),
        other => String::from_utf8(skiff_object::json::encode_sorted(other)).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_where_upstreams_do() {
        let tree = skiff_object::json::decode_untyped(
            br#"{"a":{"b.c":1,"list":[{"type":"Ready","status":"True","n":3},{"type":"Other","n":5}]},"m":{"x":1,"y":2}}"#,
        )
        .unwrap();
        let check = |path: &str, expected: &[&str]| {
            let found: Vec<String> = JsonPath::parse(path).unwrap().find(&tree).into_iter().map(plain).collect();
            assert_eq!(found, expected, "{path}");
        };
        check(r".a.b\.c", &["1"]);
        check(".a['b.c']", &["1"]);
        check(r#".a.list[?(@.type=="Ready")].status"#, &["True"]);
        check(".a.list[?(@.type=='Ready')].status", &["True"]);
        check(".a.list[?(@.n>3)].type", &["Other"]);
        check(".a.list[?(@.status)].type", &["Ready"]);
        check(".a.list[*].type", &["Ready", "Other"]);
        check(".a.list[-1].type", &["Other"]);
        check("{.a.list[0:1].type}", &["Ready"]);
        check(".m.*", &["1", "2"]);
        check("..status", &["True"]);
        check(".nothing[3].x", &[]);
        assert_eq!(JsonPath::parse(".a[").map(|_| ()), None);
        assert_eq!(JsonPath::parse(".a[x]").map(|_| ()), None);
    }
}
