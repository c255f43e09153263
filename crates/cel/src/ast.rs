//! The syntax tree, macros already expanded.

/// An expression and where its error would be shown.
#[derive(Clone, Debug)]
pub(crate) struct Expr {
    /// Numbers the expressions of one tree from 0: what the checker finds out is kept by it.
    pub(crate) id: usize,
    /// Byte offset of the token that names the operation.
    pub(crate) at: usize,
    /// How many expressions nest below, itself included.
    pub(crate) height: usize,
    pub(crate) kind: Kind,
}

#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Literal(Literal),
    Ident(Box<str>),
    Select {
        operand: Box<Expr>,
        field: Box<str>,
        /// `has(operand.field)`
        test: bool,
    },
    Call {
        function: Box<str>,
        target: Option<Box<Expr>>,
        args: Vec<Expr>,
    },
    List(Vec<Item>),
    Map(Vec<Entry>),
    Struct {
        name: Box<str>,
        fields: Vec<FieldInit>,
    },
    Fold(Box<Fold>),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Literal {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Str(Box<str>),
    Bytes(Box<[u8]>),
}

/// An item of a list; `?item` is left out when the optional is empty.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub(crate) value: Expr,
    pub(crate) optional: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: Expr,
    pub(crate) value: Expr,
    pub(crate) optional: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct FieldInit {
    pub(crate) at: usize,
    pub(crate) name: Box<str>,
    pub(crate) value: Expr,
    pub(crate) optional: bool,
}

/// What every macro over a range becomes.
#[derive(Clone, Debug)]
pub(crate) struct Fold {
    pub(crate) range: Expr,
    pub(crate) var: Box<str>,
    /// The value (or item) when `var` is the key (or index).
    pub(crate) var2: Option<Box<str>>,
    pub(crate) accu: Box<str>,
    pub(crate) init: Expr,
    pub(crate) condition: Expr,
    pub(crate) step: Expr,
    pub(crate) result: Expr,
}

/// The name of the accumulator of macros; no identifier of a user has an `@`.
pub(crate) const ACCUMULATOR: &str = "@result";

/// The iteration variable of a [`Fold`] that only binds its accumulator.
pub(crate) const UNUSED: &str = "#unused";

impl Expr {
    /// The dotted name, when this is nothing but a name.
    pub(crate) fn qualified_name(&self) -> Option<String> {
        match &self.kind {
            Kind::Ident(name) => Some(name.to_string()),
            Kind::Select { operand, field, test: false } => Some(format!("{}.{field}", operand.qualified_name()?)),
            _ => None,
        }
    }

    /// The literal string, when this is one.
    pub(crate) fn as_str(&self) -> Option<&str> {
        match &self.kind {
            Kind::Literal(Literal::Str(text)) => Some(text),
            _ => None,
        }
    }
}

impl Fold {
    /// Whether nothing is folded and this only gives a value a name.
    pub(crate) fn is_bind(&self) -> bool {
        self.var.as_ref() == UNUSED
    }
}
