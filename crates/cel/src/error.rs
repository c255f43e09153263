//! What can be wrong with an expression, before and while it runs.

use std::fmt;

/// Lines longer than this are not shown below an error: the message would be all snippet.
const SNIPPET_BYTES_MAX: usize = 16_384;

/// More errors than this in one expression are counted, not listed.
const ERRORS_MAX: usize = 100;

/// One mistake at one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issue {
    /// Line, from 1; 0 when the mistake has no place.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
}

/// Why an expression did not compile. Prints as clients of Kubernetes know it:
///
/// ```text
/// ERROR: <input>:1:6: undeclared reference to 'x' (in container '')
///  | 1 + x
///  | .....^
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompileError {
    issues: Vec<Issue>,
    source: Box<str>,
}

/// A message and the byte it is about; `None` for the expression as a whole.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) at: Option<usize>,
    pub(crate) message: String,
}

impl Fault {
    pub(crate) fn new(at: usize, message: impl Into<String>) -> Self {
        Self { at: Some(at), message: message.into() }
    }
}

impl CompileError {
    pub(crate) fn new(source: &str, faults: Vec<Fault>) -> Self {
        let mut issues: Vec<Issue> = faults
            .into_iter()
            .map(|fault| {
                let (line, column) = fault.at.map_or((0, 0), |at| place(source, at));
                Issue { line, column, message: fault.message }
            })
            .collect();
        issues.sort_by_key(|issue| (issue.line, issue.column));
        // An expression that is too long is not shown.
        let source = if source.len() > crate::parser::EXPRESSION_CHARS_MAX * 4 { "" } else { source };
        Self { issues, source: source.into() }
    }

    /// The mistakes, in the order of the text.
    pub fn issues(&self) -> &[Issue] {
        &self.issues
    }
}

/// Line and column, both from 1, of a byte offset.
fn place(source: &str, at: usize) -> (usize, usize) {
    let before = source.get(..at).unwrap_or(source);
    let line = before.matches('\n').count() + 1;
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (line, before[start..].chars().count() + 1)
}

impl fmt::Display for CompileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, issue) in self.issues.iter().take(ERRORS_MAX).enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            if issue.line == 0 {
                write!(f, "ERROR: <input>:-1:0: {}", issue.message)?;
                continue;
            }
            write!(f, "ERROR: <input>:{}:{}: {}", issue.line, issue.column, issue.message)?;
            let Some(line) = self.source.split('\n').nth(issue.line - 1) else { continue };
            if line.len() > SNIPPET_BYTES_MAX || self.source.is_empty() && issue.column > 1 {
                continue;
            }
            let line = line.replace('\t', " ");
            write!(f, "\n | {line}\n | ")?;
            let mut chars = line.chars();
            for c in chars.by_ref().take(issue.column - 1) {
                f.write_str(if c.len_utf8() > 1 { "\u{ff0e}" } else { "." })?;
            }
            f.write_str(if chars.next().is_some_and(|c| c.len_utf8() > 1) { "\u{ff3e}" } else { "^" })?;
        }
        match self.issues.len().checked_sub(ERRORS_MAX) {
            Some(more) if more > 0 => write!(f, "\n{more} more errors were truncated"),
            _ => Ok(()),
        }
    }
}

impl std::error::Error for CompileError {}

/// Why an evaluation gave no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EvalError {
    /// The expression did more work than it may.
    CostExceeded,
    /// Anything else: `no such key: x`, `division by zero`, ….
    Failed(Box<str>),
}

impl EvalError {
    /// An error in the words of the one who asked.
    pub fn failed(message: impl Into<Box<str>>) -> Self {
        Self::Failed(message.into())
    }

    pub(crate) fn no_such_overload() -> Self {
        Self::failed("no such overload")
    }
}

impl fmt::Display for EvalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CostExceeded => f.write_str("operation cancelled: actual cost limit exceeded"),
            Self::Failed(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for EvalError {}
