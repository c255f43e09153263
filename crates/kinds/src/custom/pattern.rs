//! Patterns: Go's regular expressions (RE2) in ours.
//!
//! Both are linear-time and nearly the same language. What differs is rewritten: Perl classes are ASCII in Go,
//! a brace that is no repetition is a brace, and inside a class `[`, `&&`, `--` and `~~` mean themselves.

use std::sync::OnceLock;

use regex::{Regex, RegexBuilder};

/// How large a compiled pattern may get: one definition must not hold the server's memory.
const PATTERN_BYTES_MAX: usize = 8 << 20;

/// A pattern, compiled when it is first needed: most definitions never judge an object.
pub(crate) struct Pattern {
    pub(crate) text: Box<str>,
    compiled: OnceLock<Option<Regex>>,
}

impl Pattern {
    pub(crate) fn new(text: &str) -> Self {
        Self { text: text.into(), compiled: OnceLock::new() }
    }

    /// Whether the pattern is found in `value`; `None` for a pattern that is none.
    pub(crate) fn is_match(&self, value: &str) -> Option<bool> {
        let regex = self.compiled.get_or_init(|| compile(&self.text).ok());
        regex.as_ref().map(|regex| regex.is_match(value))
    }
}

/// Compiles a Go pattern.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn compile(pattern: &str) -> Result<Regex, String> {
    let built = RegexBuilder::new(&translate(pattern)).size_limit(PATTERN_BYTES_MAX).build();
    built.map_err(|error| {
        let text = error.to_string();
        format!("error parsing regexp: {}", text.lines().last().unwrap_or_default().trim_start_matches("error: "))
    })
}

/// The pattern in our syntax.
fn translate(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len() + 16);
    let mut rest = pattern.chars().peekable();
    // How many characters of the class are read; `None` outside of classes.
    let mut class: Option<usize> = None;
    while let Some(next) = rest.next() {
        let inside = class.is_some();
        match next {
            '\\' => match rest.next() {
                Some('Q') if !inside => quoted(&mut out, &mut rest),
                Some(letter) => escape(&mut out, letter, inside),
                None => out.push('\\'),
            },
            '[' if !inside => {
                out.push('[');
                if rest.next_if_eq(&'^').is_some() {
                    out.push('^');
                }
                // A bracket that comes first is one of the class.
                if rest.next_if_eq(&']').is_some() {
                    out.push_str("\\]");
                }
                class = Some(0);
                continue;
            }
            '[' if rest.peek() == Some(&':') => {
                out.push('[');
                for inner in rest.by_ref() {
                    out.push(inner);
                    if inner == ']' {
                        break;
                    }
                }
            }
            '[' => out.push_str("\\["),
            ']' if inside => {
                out.push(']');
                class = None;
            }
            '&' | '~' if inside => {
                out.push('\\');
                out.push(next);
            }
            '-' if inside && rest.peek() == Some(&'-') => out.push_str("\\-"),
            '{' if !inside && !is_repetition(rest.clone()) => out.push_str("\\{"),
            '}' if !inside && !closes_repetition(&out) => out.push_str("\\}"),
            other => out.push(other),
        }
        if let Some(count) = &mut class {
            *count += 1;
        }
    }
    out
}

fn quoted(out: &mut String, rest: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    let mut text = String::new();
    while let Some(next) = rest.next() {
        if next == '\\' && rest.next_if_eq(&'E').is_some() {
            break;
        }
        text.push(next);
    }
    out.push_str(&regex::escape(&text));
}

fn escape(out: &mut String, letter: char, inside: bool) {
    let class = match letter {
        'd' => "0-9",
        'w' => "0-9A-Za-z_",
        's' => "\\t\\n\\f\\r ",
        'D' => "^0-9",
        'W' => "^0-9A-Za-z_",
        'S' => "^\\t\\n\\f\\r ",
        'C' => "\\x00-\\x{10FFFF}",
        '<' | '>' => {
            out.push(letter);
            return;
        }
        'b' | 'B' if !inside => {
            out.push_str(if letter == 'b' { "(?-u:\\b)" } else { "(?-u:\\B)" });
            return;
        }
        other => {
            out.push('\\');
            out.push(other);
            return;
        }
    };
    match (inside, class.starts_with('^')) {
        (true, false) => out.push_str(class),
        _ => {
            out.push('[');
            out.push_str(class);
            out.push(']');
        }
    }
}

/// Whether what follows an opening brace makes it a repetition: `3}`, `3,}`, `3,5}`.
fn is_repetition(rest: std::iter::Peekable<std::str::Chars<'_>>) -> bool {
    let inner: String = rest.take_while(|next| *next != '}').take(12).collect();
    let (low, high) = inner.split_once(',').unwrap_or((&inner, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    !low.is_empty() && digits(low) && digits(high)
}

fn closes_repetition(out: &str) -> bool {
    let inner = out.rsplit_once('{').map_or("", |(_, inner)| inner);
    !inner.is_empty()
        && inner.bytes().all(|byte| byte.is_ascii_digit() || byte == b',')
        && !out[..out.len() - inner.len()].ends_with("\\{")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_patterns_mean_what_they_mean_in_go() {
        let check = |pattern: &str, yes: &[&str], no: &[&str]| {
            let regex = compile(pattern).unwrap_or_else(|error| panic!("{pattern}: {error}"));
            yes.iter().for_each(|text| assert!(regex.is_match(text), "{pattern} should match {text}"));
            no.iter().for_each(|text| assert!(!regex.is_match(text), "{pattern} should not match {text}"));
        };
        check(r"^\d+$", &["12"], &["१२", ""]);
        check(r"^[\w.-]+$", &["a_b-c.d"], &["é"]);
        check("^[a-z[]+$", &["a[b"], &["A"]);
        check("^[]a]+$", &["]a"], &["b"]);
        check("^[^]a]+$", &["b"], &["]"]);
        check("^{{.*}}$", &["{{ x }}"], &["{x}"]);
        check("^a{2,3}$", &["aa", "aaa"], &["a", "aaaa"]);
        check("^[a&&b]+$", &["&", "a"], &["c"]);
        check(r"^\Qa.b\E$", &["a.b"], &["axb"]);
        check(r"^[[:alpha:]]\/\-\_$", &["a/-_"], &["1/-_"]);
        check(r"^[^\s]+$", &["x"], &[" "]);
        check(r"^((\d+)(\.\d+)?(Ki|Mi)?){1}$", &["1.5Mi"], &["x"]);
        assert!(compile("(").is_err() && compile("(?=a)").is_err());
    }
}
