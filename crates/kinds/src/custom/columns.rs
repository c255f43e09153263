//! `additionalPrinterColumns`: columns found by JSONPath.

use std::borrow::Cow;

use skiff_object::Tree;
use skiff_object::time::{Time, human_duration};

use crate::table::Column;

/// A column and where its cells come from.
pub(super) struct PrinterColumn {
    pub(super) column: Column,
    steps: Vec<Step>,
}

/// One step of a path.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Step {
    Field(String),
    Index(usize),
    Every,
    /// `[?(@.type=="Ready")]`
    Where {
        field: Vec<String>,
        value: String,
    },
}

impl PrinterColumn {
    /// What a definition without columns shows.
    pub(super) fn age() -> Self {
        Self {
            column: Column::new("Age", "date", "When the object was created."),
            steps: steps(".metadata.creationTimestamp"),
        }
    }

    pub(super) fn new(definition: &Tree) -> Self {
        let text = |field: &str| Cow::Owned(definition.str_at(&[field]).to_owned());
        let column = Column {
            name: text("name"),
            ty: text("type"),
            format: text("format"),
            description: text("description"),
            priority: definition.int_at(&["priority"]).and_then(|value| i32::try_from(value).ok()).unwrap_or_default(),
        };
        Self { column, steps: steps(definition.str_at(&["jsonPath"])) }
    }

    /// The cell of an object: a scalar as it is, an age for dates, several values joined.
    pub(super) fn cell(&self, object: &Tree, now: Time) -> Tree {
        let mut found = vec![object];
        for step in &self.steps {
            found = found.into_iter().flat_map(|tree| step.from(tree)).collect();
        }
        match found.as_slice() {
            [] => Tree::Null,
            [Tree::Str(text)] if self.column.ty == "date" => match Time::parse(text) {
                Ok(time) => human_duration(now.to_nanos().saturating_sub(time.to_nanos())).into(),
                Err(_) => "<invalid>".into(),
            },
            [Tree::Map(_) | Tree::List(_)] => skiff_object::errors::show(found[0]).into(),
            [value] => (*value).clone(),
            values => values.iter().map(|value| plain(value)).collect::<Vec<_>>().join(",").into(),
        }
    }
}

fn plain(value: &Tree) -> String {
    value.as_str().map_or_else(|| skiff_object::errors::show(value), str::to_owned)
}

impl Step {
    fn from<'a>(&self, tree: &'a Tree) -> Vec<&'a Tree> {
        match self {
            Self::Field(name) => tree.get(name).into_iter().collect(),
            Self::Index(index) => tree.as_list().and_then(|items| items.get(*index)).into_iter().collect(),
            Self::Every => tree.as_list().unwrap_or_default().iter().collect(),
            Self::Where { field, value } => {
                let path: Vec<&str> = field.iter().map(String::as_str).collect();
                let items = tree.as_list().unwrap_or_default().iter();
                items.filter(|item| item.at(&path).is_some_and(|found| plain(found) == *value)).collect()
            }
        }
    }
}

/// Reads the part of JSONPath that definitions use.
fn steps(path: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut rest = path.trim_start_matches('{').trim_end_matches('}');
    while !rest.is_empty() {
        if let Some(inner) = rest.strip_prefix('[') {
            let end = inner.find(']').unwrap_or(inner.len());
            steps.push(bracket(&inner[..end]));
            rest = inner.get(end + 1..).unwrap_or_default();
        } else {
            rest = rest.trim_start_matches('.');
            let end = rest.find(['.', '[']).unwrap_or(rest.len());
            if end > 0 {
                steps.push(Step::Field(rest[..end].to_owned()));
            }
            rest = &rest[end..];
        }
    }
    steps
}

fn bracket(inner: &str) -> Step {
    let unquoted = |text: &str| text.trim().trim_matches(['"', '\'']).to_owned();
    if let Some(condition) = inner.strip_prefix("?(").map(|rest| rest.trim_end_matches(')'))
        && let Some((field, value)) = condition.split_once("==")
    {
        let field = field.trim().trim_start_matches('@').split('.').filter(|part| !part.is_empty());
        return Step::Where { field: field.map(str::to_owned).collect(), value: unquoted(value) };
    }
    match inner.parse() {
        Ok(index) => Step::Index(index),
        Err(_) if inner == "*" => Step::Every,
        Err(_) => Step::Field(unquoted(inner)),
    }
}
