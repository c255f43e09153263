//! Label selectors: the text of a query (`app=web,tier in (a,b),!canary`) and the `LabelSelector`
//! objects in specs.

use std::collections::BTreeSet;
use std::fmt;

use crate::errors::{FieldError, message};
use crate::name;
use crate::path::Path;
use crate::tree::{Map, Tree};

/// All requirements must hold. No requirements: everything.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Selector {
    requirements: Vec<Requirement>,
    nothing: bool,
}

/// One condition on one label.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Requirement {
    /// The label.
    pub key: String,
    /// The comparison.
    pub operator: Operator,
    /// What it is compared with; sorted, without repetitions.
    pub values: Vec<String>,
}

/// How a label is compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operator {
    /// `=`
    Equals,
    /// `==`
    DoubleEquals,
    /// `!=`
    NotEquals,
    /// `in (…)`
    In,
    /// `notin (…)`
    NotIn,
    /// The key alone.
    Exists,
    /// `!` and the key.
    DoesNotExist,
    /// `>`
    GreaterThan,
    /// `<`
    LessThan,
}

/// A text or an object is no label selector, in upstream's words.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct LabelSelectorError(String);

impl Default for Selector {
    fn default() -> Self {
        Self::everything()
    }
}

impl Selector {
    /// Selects every object.
    pub const fn everything() -> Self {
        Self { requirements: Vec::new(), nothing: false }
    }

    /// Selects no object: what an absent `LabelSelector` means.
    pub const fn nothing() -> Self {
        Self { requirements: Vec::new(), nothing: true }
    }

    /// Reads the text of a `labelSelector` query parameter.
    ///
    /// # Errors
    /// When the text is malformed or a key or value is no label's.
    pub fn parse(text: &str) -> Result<Self, LabelSelectorError> {
        let mut parser = Parser { tokens: lex(text), position: 0 };
        let mut requirements = parser.selector().map_err(LabelSelectorError)?;
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(Self { requirements, nothing: false })
    }

    /// Reads a `LabelSelector` object. Absent selects nothing, empty selects everything.
    ///
    /// # Errors
    /// When an operator is unknown or a key or value is no label's.
    pub fn from_object(object: Option<&Tree>) -> Result<Self, LabelSelectorError> {
        let Some(map) = object.and_then(Tree::as_map) else { return Ok(Self::nothing()) };
        let mut requirements = Vec::new();
        for (key, value) in map.get("matchLabels").and_then(Tree::as_map).into_iter().flat_map(Map::iter) {
            let value = value.as_str().unwrap_or("").to_owned();
            requirements.push(requirement(key.as_str(), Operator::Equals, vec![value])?);
        }
        for expression in map.get("matchExpressions").and_then(Tree::as_list).unwrap_or(&[]) {
            let operator = match expression.str_at(&["operator"]) {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => {
                    let other = crate::errors::quote(other);
                    return Err(LabelSelectorError(format!("{other} is not a valid label selector operator")));
                }
            };
            let values = expression.list_at(&["values"]).iter().filter_map(Tree::as_str).map(str::to_owned).collect();
            requirements.push(requirement(expression.str_at(&["key"]), operator, values)?);
        }
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(Self { requirements, nothing: false })
    }

    /// Selects the objects that carry all of `labels` (the `selector` of a Service). Empty or absent
    /// selects everything; callers that mean nothing by it say so themselves.
    pub fn from_set(labels: Option<&Tree>) -> Self {
        let mut requirements: Vec<Requirement> = labels
            .and_then(Tree::as_map)
            .into_iter()
            .flat_map(Map::iter)
            .map(|(key, value)| Requirement {
                key: key.as_str().to_owned(),
                operator: Operator::Equals,
                values: vec![value.as_str().unwrap_or("").to_owned()],
            })
            .collect();
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Self { requirements, nothing: false }
    }

    /// The conditions, by key.
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// Whether everything is selected.
    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty() && !self.nothing
    }

    /// Whether an object matches whose labels are given by `get`.
    pub fn matches<'a>(&self, get: impl Fn(&str) -> Option<&'a str>) -> bool {
        !self.nothing && self.requirements.iter().all(|requirement| requirement.matches(get(&requirement.key)))
    }

    /// Whether an object with these labels (`metadata.labels`) matches.
    pub fn matches_labels(&self, labels: Option<&Tree>) -> bool {
        self.matches(|key| labels.and_then(|labels| labels.get(key)).and_then(Tree::as_str))
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, requirement) in self.requirements.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            write!(f, "{comma}{requirement}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (key, values) = (&self.key, self.values.join(","));
        match self.operator {
            Operator::Equals => write!(f, "{key}={values}"),
            Operator::DoubleEquals => write!(f, "{key}=={values}"),
            Operator::NotEquals => write!(f, "{key}!={values}"),
            Operator::In => write!(f, "{key} in ({values})"),
            Operator::NotIn => write!(f, "{key} notin ({values})"),
            Operator::Exists => f.write_str(key),
            Operator::DoesNotExist => write!(f, "!{key}"),
            Operator::GreaterThan => write!(f, "{key}>{values}"),
            Operator::LessThan => write!(f, "{key}<{values}"),
        }
    }
}

impl Requirement {
    fn matches(&self, label: Option<&str>) -> bool {
        let among = |label: &str| self.values.iter().any(|value| value == label);
        match self.operator {
            Operator::Equals | Operator::DoubleEquals | Operator::In => label.is_some_and(among),
            Operator::NotEquals | Operator::NotIn => !label.is_some_and(among),
            Operator::Exists => label.is_some(),
            Operator::DoesNotExist => label.is_none(),
            Operator::GreaterThan => self.ordered(label, |label, bound| label > bound),
            Operator::LessThan => self.ordered(label, |label, bound| label < bound),
        }
    }

    fn ordered(&self, label: Option<&str>, holds: fn(i64, i64) -> bool) -> bool {
        let label = label.and_then(integer);
        let bound = self.values.first().and_then(|value| integer(value));
        label.zip(bound).is_some_and(|(label, bound)| holds(label, bound))
    }
}

fn integer(text: &str) -> Option<i64> {
    text.parse().ok()
}

/// Checks a `LabelSelector` in a spec, as upstream's validation does.
pub fn validate(selector: Option<&Tree>, path: Path<'_>) -> Vec<FieldError> {
    let Some(selector) = selector.filter(|selector| !selector.is_null()) else { return Vec::new() };
    let mut errors = name::labels(selector.get("matchLabels"), path.child("matchLabels"));
    let expressions = path.child("matchExpressions");
    for (index, expression) in selector.list_at(&["matchExpressions"]).iter().enumerate() {
        errors.extend(validate_expression(expression, expressions.index(index)));
    }
    errors
}

fn validate_expression(expression: &Tree, path: Path<'_>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let values = expression.list_at(&["values"]);
    match expression.str_at(&["operator"]) {
        "In" | "NotIn" if values.is_empty() => errors
            .push(FieldError::required(path.child("values"), "must be specified when `operator` is 'In' or 'NotIn'")),
        "Exists" | "DoesNotExist" if !values.is_empty() => errors.push(FieldError::forbidden(
            path.child("values"),
            "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
        )),
        "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
        other => errors.push(FieldError::invalid(path.child("operator"), other, "not a valid selector operator")),
    }
    let key = expression.str_at(&["key"]);
    errors
        .extend(name::qualified_name(key).into_iter().map(|error| FieldError::invalid(path.child("key"), key, error)));
    let values_path = path.child("values");
    for (index, value) in values.iter().filter_map(Tree::as_str).enumerate() {
        let wrong = name::label_value(value).into_iter();
        errors.extend(wrong.map(|error| FieldError::invalid(values_path.index(index), value, error)));
    }
    errors
}

fn requirement(key: &str, operator: Operator, values: Vec<String>) -> Result<Requirement, LabelSelectorError> {
    let mut errors = Vec::new();
    let wrong = name::qualified_name(key);
    if !wrong.is_empty() {
        errors.push(FieldError::invalid("key", key, wrong.join("; ")));
    }
    let path = Path::new("values");
    let shown = || crate::errors::BadValue::Bare(format!("[{}]", values.join(" ")));
    match operator {
        Operator::In | Operator::NotIn if values.is_empty() => {
            errors.push(FieldError::invalid(path, shown(), "for 'in', 'notin' operators, values set can't be empty"))
        }
        Operator::Exists | Operator::DoesNotExist if !values.is_empty() => {
            errors.push(FieldError::invalid(path, shown(), "values set must be empty for exists and does not exist"))
        }
        Operator::GreaterThan | Operator::LessThan => {
            for (index, value) in values.iter().enumerate().filter(|(_, value)| integer(value).is_none()) {
                errors.push(FieldError::invalid(
                    path.index(index),
                    value.as_str(),
                    "for 'Gt', 'Lt' operators, the value must be an integer",
                ));
            }
        }
        _ => {}
    }
    for (index, value) in values.iter().enumerate() {
        let wrong = name::label_value(value);
        if !wrong.is_empty() {
            errors.push(FieldError::invalid(path.index(index).key(key), value.as_str(), wrong.join("; ")));
        }
    }
    if errors.is_empty() {
        Ok(Requirement { key: key.to_owned(), operator, values })
    } else {
        Err(LabelSelectorError(message(&errors)))
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Token {
    Wrong,
    End,
    Close,
    Comma,
    Not,
    DoubleEquals,
    Equals,
    Greater,
    Identifier,
    In,
    Less,
    NotEquals,
    NotIn,
    Open,
}

fn keyword(text: &str) -> Option<Token> {
    Some(match text {
        ")" => Token::Close,
        "," => Token::Comma,
        "!" => Token::Not,
        "==" => Token::DoubleEquals,
        "=" => Token::Equals,
        ">" => Token::Greater,
        "in" => Token::In,
        "<" => Token::Less,
        "!=" => Token::NotEquals,
        "notin" => Token::NotIn,
        "(" => Token::Open,
        _ => return None,
    })
}

fn lex(text: &str) -> Vec<(Token, String)> {
    let special = |c: char| matches!(c, '=' | '!' | '(' | ')' | ',' | '>' | '<');
    let space = |c: char| matches!(c, ' ' | '\t' | '\r' | '\n');
    let mut tokens = Vec::new();
    // A NUL byte ends the text upstream, too.
    let mut rest = text.split('\0').next().unwrap_or("");
    loop {
        rest = rest.trim_start_matches(space);
        let Some(first) = rest.chars().next() else { break };
        if special(first) {
            let run = rest.find(|c| !special(c)).unwrap_or(rest.len());
            // The longest operator at the start; no operator is longer than two characters.
            let known = (1..=run.min(2)).rev().find_map(|len| keyword(&rest[..len]).map(|token| (token, len)));
            let (token, len) = known.unwrap_or((Token::Wrong, run));
            tokens.push((token, rest[..len].to_owned()));
            rest = &rest[len..];
        } else {
            let end = rest.find(|c| special(c) || space(c)).unwrap_or(rest.len());
            let word = &rest[..end];
            tokens.push((keyword(word).unwrap_or(Token::Identifier), word.to_owned()));
            rest = &rest[end..];
        }
    }
    tokens.push((Token::End, String::new()));
    tokens
}

struct Parser {
    tokens: Vec<(Token, String)>,
    position: usize,
}

/// `in` and `notin` are words where a key or a value may stand.
fn as_value(token: Token) -> Token {
    if matches!(token, Token::In | Token::NotIn) { Token::Identifier } else { token }
}

impl Parser {
    fn peek(&self) -> (Token, &str) {
        self.tokens.get(self.position).map_or((Token::End, ""), |(token, text)| (as_value(*token), text))
    }

    fn take_operator(&mut self) -> (Token, String) {
        let token = self.tokens.get(self.position).cloned().unwrap_or((Token::End, String::new()));
        self.position += 1;
        token
    }

    fn take(&mut self) -> (Token, String) {
        let (token, text) = self.take_operator();
        (as_value(token), text)
    }

    fn selector(&mut self) -> Result<Vec<Requirement>, String> {
        let mut requirements = Vec::new();
        loop {
            match self.peek() {
                (Token::Identifier | Token::Not, _) => {
                    let one = self.requirement().map_err(|error| format!("unable to parse requirement: {error}"))?;
                    requirements.push(one);
                    match self.take() {
                        (Token::End, _) => return Ok(requirements),
                        (Token::Comma, _) => match self.peek() {
                            (Token::Identifier | Token::Not, _) => {}
                            (_, text) => return Err(format!("found '{text}', expected: identifier after ','")),
                        },
                        (_, text) => return Err(format!("found '{text}', expected: ',' or 'end of string'")),
                    }
                }
                (Token::End, _) => return Ok(requirements),
                (_, text) => return Err(format!("found '{text}', expected: !, identifier, or 'end of string'")),
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let (mut token, mut key) = self.take();
        let negated = token == Token::Not;
        if negated {
            (token, key) = self.take();
        }
        if token != Token::Identifier {
            return Err(format!("found '{key}', expected: identifier"));
        }
        let wrong = name::qualified_name(&key);
        if !wrong.is_empty() {
            // Upstream has no path here and prints Go's word for that.
            return Err(FieldError::invalid("<nil>", key, wrong.join("; ")).to_string());
        }
        let plain = matches!(self.peek().0, Token::End | Token::Comma);
        let (operator, values) = if negated {
            (Operator::DoesNotExist, BTreeSet::new())
        } else if plain {
            (Operator::Exists, BTreeSet::new())
        } else {
            let operator = self.operator()?;
            let values = match operator {
                Operator::In | Operator::NotIn => self.values()?,
                _ => self.exact_value()?,
            };
            (operator, values)
        };
        requirement(&key, operator, values.into_iter().collect()).map_err(|error| error.0)
    }

    fn operator(&mut self) -> Result<Operator, String> {
        Ok(match self.take_operator() {
            (Token::In, _) => Operator::In,
            (Token::Equals, _) => Operator::Equals,
            (Token::DoubleEquals, _) => Operator::DoubleEquals,
            (Token::Greater, _) => Operator::GreaterThan,
            (Token::Less, _) => Operator::LessThan,
            (Token::NotIn, _) => Operator::NotIn,
            (Token::NotEquals, _) => Operator::NotEquals,
            (_, text) => return Err(format!("found '{text}', expected: in, notin, =, ==, !=, gt, lt")),
        })
    }

    fn values(&mut self) -> Result<BTreeSet<String>, String> {
        let (token, text) = self.take();
        if token != Token::Open {
            return Err(format!("found '{text}' expected: '('"));
        }
        match self.peek() {
            (Token::Identifier | Token::Comma, text) => {
                let text = text.to_owned();
                let values = self.identifiers()?;
                match self.take() {
                    (Token::Close, _) => Ok(values),
                    _ => Err(format!("found '{text}', expected: ')'")),
                }
            }
            (Token::Close, _) => {
                self.take();
                Ok(BTreeSet::from([String::new()]))
            }
            (_, text) => Err(format!("found '{text}', expected: ',', ')' or identifier")),
        }
    }

    fn identifiers(&mut self) -> Result<BTreeSet<String>, String> {
        let mut values = BTreeSet::new();
        loop {
            match self.take() {
                (Token::Identifier, text) => {
                    values.insert(text);
                    match self.peek() {
                        (Token::Comma, _) => {}
                        (Token::Close, _) => return Ok(values),
                        (_, text) => return Err(format!("found '{text}', expected: ',' or ')'")),
                    }
                }
                (Token::Comma, _) => {
                    if values.is_empty() {
                        values.insert(String::new());
                    }
                    match self.peek().0 {
                        Token::Close => {
                            values.insert(String::new());
                            return Ok(values);
                        }
                        Token::Comma => {
                            values.insert(String::new());
                        }
                        _ => {}
                    }
                }
                (_, text) => return Err(format!("found '{text}', expected: ',', or identifier")),
            }
        }
    }

    fn exact_value(&mut self) -> Result<BTreeSet<String>, String> {
        if matches!(self.peek().0, Token::End | Token::Comma) {
            return Ok(BTreeSet::from([String::new()]));
        }
        match self.take() {
            (Token::Identifier, text) => Ok(BTreeSet::from([text])),
            (_, text) => Err(format!("found '{text}', expected: identifier")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn selectors_print_in_order() {
        for (text, want) in [
            ("", ""),
            ("x=a,y=b,z=c", "x=a,y=b,z=c"),
            ("b, !a", "!a,b"),
            ("x!=a", "x!=a"),
            ("x == a", "x==a"),
            ("x=", "x="),
            ("x in (foo,,baz),y,z notin ()", "x in (,baz,foo),y,z notin ()"),
            ("in in (in, notin)", "in in (in,notin)"),
            ("x>1", "x>1"),
            ("a.b/c", "a.b/c"),
        ] {
            assert_eq!(Selector::parse(text).unwrap().to_string(), want, "{text}");
        }
    }

    #[test]
    fn malformed_selectors_say_what_was_expected() {
        for (text, want) in [
            ("x a", "unable to parse requirement: found 'a', expected: in, notin, =, ==, !=, gt, lt"),
            ("x,", "found '', expected: identifier after ','"),
            ("=a", "found '=', expected: !, identifier, or 'end of string'"),
            ("x in a", "unable to parse requirement: found 'a' expected: '('"),
            ("x in (a", "unable to parse requirement: found '', expected: ',' or ')'"),
            ("x=a=b", "found '=', expected: ',' or 'end of string'"),
            ("!", "unable to parse requirement: found '', expected: identifier"),
            (
                "x>a",
                r#"unable to parse requirement: values[0]: Invalid value: "a": for 'Gt', 'Lt' operators, the value must be an integer"#,
            ),
        ] {
            assert_eq!(Selector::parse(text).unwrap_err().to_string(), want, "{text}");
        }
        let error = Selector::parse("-=a").unwrap_err().to_string();
        assert!(error.starts_with(r#"unable to parse requirement: <nil>: Invalid value: "-": name part must consist"#));
        let error = Selector::parse("a=-").unwrap_err().to_string();
        assert!(error.starts_with(r#"unable to parse requirement: values[0][a]: Invalid value: "-": a valid label"#));
    }

    #[test]
    fn selectors_match() {
        let labels = |key: &str| match key {
            "app" => Some("web"),
            "n" => Some("5"),
            _ => None,
        };
        for (text, want) in [
            ("app=web", true),
            ("app!=web", false),
            ("none!=x", true),
            ("none notin (a)", true),
            ("app in (a,web)", true),
            ("!none,app", true),
            ("n>4", true),
            ("n<5", false),
            ("app>1", false),
        ] {
            assert_eq!(Selector::parse(text).unwrap().matches(labels), want, "{text}");
        }
        assert!(!Selector::from_object(None).unwrap().matches(labels));
        assert!(Selector::from_object(Some(&Tree::map())).unwrap().matches(labels));
    }

    proptest! {
        #[test]
        fn printing_and_parsing_agree(
            parts in prop::collection::vec(("[a-z]{1,3}", 0..7_usize, prop::collection::btree_set("[a-z]{0,2}", 1..3)), 0..4)
        ) {
            let requirements: Vec<Requirement> = parts.into_iter().map(|(key, operator, values)| {
                let operator = [
                    Operator::Equals, Operator::DoubleEquals, Operator::NotEquals, Operator::In, Operator::NotIn,
                    Operator::Exists, Operator::DoesNotExist,
                ][operator];
                let take = match operator {
                    Operator::In | Operator::NotIn => usize::MAX,
                    Operator::Exists | Operator::DoesNotExist => 0,
                    _ => 1,
                };
                Requirement { key, operator, values: values.into_iter().take(take).collect() }
            }).collect();
            let mut selector = Selector { requirements, nothing: false };
            selector.requirements.sort_by(|a, b| a.key.cmp(&b.key));
            prop_assert_eq!(Selector::parse(&selector.to_string()).unwrap(), selector);
        }

        #[test]
        fn no_text_panics(text in "[a-z!=<>(), ä\u{0}]{0,30}") {
            let _ = Selector::parse(&text);
        }
    }
}
