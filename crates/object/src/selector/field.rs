//! Field selectors: `metadata.name=web,spec.nodeName!=node-1`.
//!
//! A term is a field, an operator and a value in which `\`, `,` and `=` are escaped by a backslash.
//! Which fields a kind can be selected by is the kind's business.

use std::fmt;

/// All terms must hold. No terms: everything.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Selector {
    terms: Vec<Term>,
}

/// One condition on one field.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Term {
    /// The field, dotted.
    pub field: String,
    /// Whether the value must differ (`!=`) instead of being equal.
    pub negated: bool,
    /// The value, unescaped.
    pub value: String,
}

/// A text is no field selector, in upstream's words.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FieldSelectorError {
    /// A term without an operator.
    #[error("invalid selector: '{selector}'; can't understand '{term}'")]
    Term {
        /// The whole text.
        selector: String,
        /// The term in question.
        term: String,
    },
    /// A backslash before something that needs none.
    #[error("invalid field selector: invalid escape sequence: {0}")]
    Escape(String),
    /// A `,` or `=` in a value without a backslash.
    // Upstream prints the number of the character, and so do we.
    #[error("invalid field selector: unescaped character in value: {}", *.0 as u32)]
    Unescaped(char),
}

impl Selector {
    /// Selects every object.
    pub const fn everything() -> Self {
        Self { terms: Vec::new() }
    }

    /// Selects the objects whose `field` is `value`.
    pub fn equals(field: impl Into<String>, value: impl Into<String>) -> Self {
        Self { terms: vec![Term { field: field.into(), negated: false, value: value.into() }] }
    }

    /// Reads the text of a `fieldSelector` query parameter.
    ///
    /// # Errors
    /// When a term has no operator or a value is escaped wrongly.
    pub fn parse(text: &str) -> Result<Self, FieldSelectorError> {
        let mut parts = split_terms(text);
        parts.sort_unstable();
        let mut terms = Vec::new();
        for part in parts.into_iter().filter(|part| !part.is_empty()) {
            let (field, negated, value) = split_term(part)
                .ok_or_else(|| FieldSelectorError::Term { selector: text.to_owned(), term: part.to_owned() })?;
            terms.push(Term { field: field.to_owned(), negated, value: unescape(value)? });
        }
        Ok(Self { terms })
    }

    /// The conditions, ordered.
    pub fn terms(&self) -> &[Term] {
        &self.terms
    }

    /// Whether everything is selected.
    pub fn is_everything(&self) -> bool {
        self.terms.is_empty()
    }

    /// Whether an object matches whose fields are given by `get`; an absent field is empty.
    pub fn matches<'a>(&self, get: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.terms.iter().all(|term| (get(&term.field).unwrap_or("") == term.value) != term.negated)
    }

    /// The one value that `field` must have, if the selector asks for one.
    pub fn required(&self, field: &str) -> Option<&str> {
        self.terms.iter().find(|term| !term.negated && term.field == field).map(|term| term.value.as_str())
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, term) in self.terms.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            let operator = if term.negated { "!=" } else { "=" };
            write!(f, "{comma}{}{operator}{}", term.field, escape(&term.value))?;
        }
        Ok(())
    }
}

/// A value with `\`, `,` and `=` escaped.
pub fn escape(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for c in value.chars() {
        if matches!(c, '\\' | ',' | '=') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

fn unescape(value: &str) -> Result<String, FieldSelectorError> {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(next @ ('\\' | ',' | '=')) => out.push(next),
                Some(next) => return Err(FieldSelectorError::Escape(format!("\\{next}"))),
                None => return Err(FieldSelectorError::Escape("\\".to_owned())),
            },
            ',' | '=' => return Err(FieldSelectorError::Unescaped(c)),
            c => out.push(c),
        }
    }
    Ok(out)
}

fn split_terms(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn split_term(term: &str) -> Option<(&str, bool, &str)> {
    for (at, _) in term.char_indices() {
        for (operator, negated) in [("!=", true), ("==", false), ("=", false)] {
            if let Some(value) = term[at..].strip_prefix(operator) {
                return Some((&term[..at], negated, value));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn terms_are_read_and_matched() {
        let selector = Selector::parse(r"spec.nodeName!=a,metadata.name==x\,y\=z").unwrap();
        assert_eq!(selector.to_string(), r"metadata.name=x\,y\=z,spec.nodeName!=a");
        let fields = |name: &str| (name == "metadata.name").then_some("x,y=z");
        assert!(selector.matches(fields));
        assert_eq!(selector.required("metadata.name"), Some("x,y=z"));
        assert!(Selector::parse("").unwrap().is_everything());
    }

    #[test]
    fn wrong_terms_say_what_is_wrong() {
        for (text, want) in [
            ("a", "invalid selector: 'a'; can't understand 'a'"),
            (r"a=b\c", r"invalid field selector: invalid escape sequence: \c"),
            ("a=b=c", "invalid field selector: unescaped character in value: 61"),
        ] {
            assert_eq!(Selector::parse(text).unwrap_err().to_string(), want);
        }
    }

    proptest! {
        #[test]
        fn printing_and_parsing_agree(terms in prop::collection::vec(("[a-z.]{1,8}", any::<bool>(), ".{0,8}"), 0..4)) {
            let mut terms: Vec<Term> = terms
                .into_iter()
                .map(|(field, negated, value)| Term { field, negated, value })
                .collect();
            let text = Selector { terms: terms.clone() }.to_string();
            let mut again = Selector::parse(&text).unwrap().terms;
            terms.sort();
            again.sort();
            prop_assert_eq!(again, terms);
        }

        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _ = Selector::parse(&text);
        }
    }
}
