//! Tokens to the syntax tree: precedence climbing, with macros expanded on the way.

use crate::ast::{Entry, Expr, FieldInit, Item, Kind, Literal};
use crate::error::Fault;
use crate::lexer::{self, Lexeme, Token};
use crate::macros;

/// Longer expressions are not read. The number of cel-go's parser.
pub(crate) const EXPRESSION_CHARS_MAX: usize = 100_000;

/// Deeper expressions are not read: parser, checker and evaluator go down by recursion, on the 2 MiB a worker has for
/// its whole stack; an unoptimized build takes up to 12 KiB for a level. cel-go's parser, on a stack that grows, ends
/// at 250; chains of `&&` and of `||` are one level here.
pub(crate) const DEPTH_MAX: usize = 120;

/// Words that name nothing, kept free for later versions of the language.
pub(crate) const RESERVED: &[&str] = &[
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// What may stand where an expression begins, in the words of cel-go's grammar.
const PRIMARY: &str = "{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, \
                       BYTES, IDENTIFIER}";

/// Binary operators: sign, function, precedence.
const BINARY: &[(&str, &str, u8)] = &[
    ("||", "_||_", 1),
    ("&&", "_&&_", 2),
    ("==", "_==_", 3),
    ("!=", "_!=_", 3),
    ("<=", "_<=_", 3),
    (">=", "_>=_", 3),
    ("<", "_<_", 3),
    (">", "_>_", 3),
    ("+", "_+_", 4),
    ("-", "_-_", 4),
    ("*", "_*_", 5),
    ("/", "_/_", 5),
    ("%", "_%_", 5),
];

/// An error was reported and what follows cannot be made sense of.
#[derive(Debug)]
pub(crate) struct Abort;

type Parsed<T> = Result<T, Abort>;

pub(crate) struct Parser {
    lexemes: Vec<Lexeme>,
    source: Box<str>,
    at: usize,
    depth: usize,
    ids: usize,
    pub(crate) faults: Vec<Fault>,
}

/// The tree of `source` and how many expressions it has.
pub(crate) fn parse(source: &str) -> Result<(Expr, usize), Vec<Fault>> {
    let chars = source.chars().count();
    if chars > EXPRESSION_CHARS_MAX {
        let message = format!("expression code point size exceeds limit: size: {chars}, limit {EXPRESSION_CHARS_MAX}");
        return Err(vec![Fault { at: None, message }]);
    }
    let (lexemes, faults) = lexer::lex(source);
    let mut parser = Parser { lexemes, source: source.into(), at: 0, depth: 0, ids: 0, faults };
    let expr = parser.whole();
    match expr {
        Ok(expr) if parser.faults.is_empty() => Ok((expr, parser.ids)),
        _ => Err(parser.faults),
    }
}

impl Parser {
    fn whole(&mut self) -> Parsed<Expr> {
        let expr = self.expr()?;
        if self.token() != &Token::End {
            let message = format!("Syntax error: mismatched input '{}' expecting <EOF>", self.text());
            return Err(self.abort(message));
        }
        Ok(expr)
    }

    fn token(&self) -> &Token {
        &self.lexemes[self.at].token
    }

    fn start(&self) -> usize {
        self.lexemes[self.at].start
    }

    fn text(&self) -> &str {
        let lexeme = &self.lexemes[self.at];
        if lexeme.token == Token::End { "<EOF>" } else { &self.source[lexeme.start..lexeme.end] }
    }

    fn advance(&mut self) {
        if self.at + 1 < self.lexemes.len() {
            self.at += 1;
        }
    }

    fn sign(&self) -> &'static str {
        match self.token() {
            Token::Sign(sign) => sign,
            _ => "",
        }
    }

    fn eat(&mut self, sign: &str) -> bool {
        let found = self.sign() == sign;
        if found {
            self.advance();
        }
        found
    }

    fn expect(&mut self, sign: &str) -> Parsed<()> {
        if self.eat(sign) {
            return Ok(());
        }
        let message = format!("Syntax error: mismatched input '{}' expecting '{sign}'", self.text());
        Err(self.abort(message))
    }

    fn abort(&mut self, message: impl Into<String>) -> Abort {
        self.faults.push(Fault::new(self.start(), message));
        Abort
    }

    /// An expression of its own; counts how deep it stands.
    pub(crate) fn make(&mut self, at: usize, kind: Kind) -> Parsed<Expr> {
        let height = 1 + children_height(&kind);
        if height > DEPTH_MAX {
            self.faults.push(Fault { at: None, message: format!("expression recursion limit exceeded: {DEPTH_MAX}") });
            return Err(Abort);
        }
        let id = self.ids;
        self.ids += 1;
        Ok(Expr { id, at, height, kind })
    }

    pub(crate) fn call(&mut self, at: usize, function: &str, args: Vec<Expr>) -> Parsed<Expr> {
        self.make(at, Kind::Call { function: function.into(), target: None, args })
    }

    fn expr(&mut self) -> Parsed<Expr> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            self.faults.push(Fault { at: None, message: format!("expression recursion limit exceeded: {DEPTH_MAX}") });
            return Err(Abort);
        }
        let condition = self.binary(0)?;
        let at = self.start();
        let result = if self.eat("?") {
            let yes = self.binary(0)?;
            self.expect(":")?;
            let no = self.expr()?;
            self.call(at, "_?_:_", vec![condition, yes, no])
        } else {
            Ok(condition)
        };
        self.depth -= 1;
        result
    }

    /// The operator here: its function and precedence.
    fn operator(&self) -> Option<(&'static str, u8)> {
        match self.token() {
            Token::Sign(sign) => BINARY.iter().find(|(text, ..)| text == sign).map(|(_, f, p)| (*f, *p)),
            Token::Ident(name) if &**name == "in" => Some(("@in", 3)),
            _ => None,
        }
    }

    /// Operators of at least a precedence, from the left. One function for all of them: a level of parentheses should
    /// take little stack.
    fn binary(&mut self, precedence_min: u8) -> Parsed<Expr> {
        let mut left = self.unary()?;
        while let Some((function, precedence)) = self.operator() {
            if precedence < precedence_min {
                break;
            }
            let at = self.start();
            self.advance();
            let right = self.binary(precedence + 1)?;
            let mut terms = vec![left, right];
            // A chain of `||` or of `&&` is one call with all its terms.
            while precedence < 3 && self.operator() == Some((function, precedence)) {
                self.advance();
                terms.push(self.binary(precedence + 1)?);
            }
            left = self.call(at, function, terms)?;
        }
        Ok(left)
    }

    fn unary(&mut self) -> Parsed<Expr> {
        let at = self.start();
        let sign = self.sign();
        if sign != "!" && sign != "-" {
            let primary = self.primary()?;
            return self.selectors(primary);
        }
        let mut count = 0;
        while self.eat(sign) {
            count += 1;
        }
        // A number's own sign belongs to it: the smallest int has no positive form.
        if sign == "-" && count % 2 == 1 && matches!(self.token(), Token::Int(_) | Token::Literal(Literal::Double(_))) {
            let literal = self.negative(at)?;
            return self.selectors(literal);
        }
        let operand = self.primary()?;
        let operand = self.selectors(operand)?;
        match (count % 2, sign) {
            (0, _) => Ok(operand),
            (_, "!") => self.call(at, "!_", vec![operand]),
            _ => self.call(at, "-_", vec![operand]),
        }
    }

    fn negative(&mut self, at: usize) -> Parsed<Expr> {
        let literal = match self.token().clone() {
            Token::Int(digits) => Literal::Int(self.int(&format!("-{digits}"))),
            Token::Literal(Literal::Double(number)) => Literal::Double(-number),
            _ => Literal::Null,
        };
        self.advance();
        self.make(at, Kind::Literal(literal))
    }

    fn int(&mut self, text: &str) -> i64 {
        let (sign, digits) = text.strip_prefix('-').map_or(("", text), |digits| ("-", digits));
        let parsed = match digits.strip_prefix("0x") {
            Some(hex) => i64::from_str_radix(&format!("{sign}{hex}"), 16),
            None => text.parse(),
        };
        parsed.unwrap_or_else(|_| {
            let at = self.start();
            self.faults.push(Fault::new(at, "invalid int literal"));
            0
        })
    }

    /// `.field`, `.method(…)`, `[index]` and their optional forms, as many as follow.
    fn selectors(&mut self, mut operand: Expr) -> Parsed<Expr> {
        loop {
            let at = self.start();
            if self.eat(".") {
                operand = self.select(at, operand)?;
            } else if self.eat("[") {
                let optional = self.eat("?");
                let index = self.expr()?;
                self.expect("]")?;
                operand = self.call(at, if optional { "_[?_]" } else { "_[_]" }, vec![operand, index])?;
            } else {
                return Ok(operand);
            }
        }
    }

    fn select(&mut self, at: usize, operand: Expr) -> Parsed<Expr> {
        let optional = self.eat("?");
        let (field, quoted) = match self.token().clone() {
            Token::Ident(name) if !is_literal_word(&name) => (name, false),
            Token::Quoted(name) => (name, true),
            _ => {
                let message = format!("Syntax error: no viable alternative at input '.{}'", self.text());
                return Err(self.abort(message));
            }
        };
        self.advance();
        if optional {
            let name = self.make(at, Kind::Literal(Literal::Str(field)))?;
            return self.call(at, "_?._", vec![operand, name]);
        }
        let open = self.start();
        if quoted || !self.eat("(") {
            return self.make(at, Kind::Select { operand: Box::new(operand), field, test: false });
        }
        let args = self.arguments()?;
        match macros::expand(self, open, &field, Some(operand), args)? {
            Ok(expanded) => Ok(expanded),
            Err((Some(target), args)) => {
                self.make(open, Kind::Call { function: field, target: Some(Box::new(target)), args })
            }
            Err((None, args)) => self.call(open, &field, args),
        }
    }

    fn arguments(&mut self) -> Parsed<Vec<Expr>> {
        let mut args = Vec::new();
        if self.eat(")") {
            return Ok(args);
        }
        loop {
            args.push(self.expr()?);
            if !self.eat(",") {
                self.expect(")")?;
                return Ok(args);
            }
        }
    }

    fn primary(&mut self) -> Parsed<Expr> {
        let at = self.start();
        match self.token().clone() {
            Token::Literal(literal) => {
                self.advance();
                self.make(at, Kind::Literal(literal))
            }
            Token::Int(digits) => {
                let number = self.int(&digits);
                self.advance();
                self.make(at, Kind::Literal(Literal::Int(number)))
            }
            Token::Ident(name) => self.named(at, &name, false),
            Token::Sign("(") => {
                self.advance();
                let inner = self.expr()?;
                self.expect(")")?;
                Ok(inner)
            }
            Token::Sign("[") => {
                self.advance();
                let items = self.items()?;
                self.make(at, Kind::List(items))
            }
            Token::Sign("{") => {
                self.advance();
                let entries = self.entries()?;
                self.make(at, Kind::Map(entries))
            }
            Token::Sign(".") => {
                self.advance();
                match self.token().clone() {
                    Token::Ident(name) if !is_literal_word(&name) => self.named(at, &name, true),
                    _ => Err(self.unexpected()),
                }
            }
            _ => Err(self.unexpected()),
        }
    }

    fn unexpected(&mut self) -> Abort {
        let message = format!("Syntax error: mismatched input '{}' expecting {PRIMARY}", self.text());
        self.abort(message)
    }

    /// A name, a call of one, or an object literal of one.
    fn named(&mut self, at: usize, name: &str, rooted: bool) -> Parsed<Expr> {
        let literal = match name {
            "true" => Some(Literal::Bool(true)),
            "false" => Some(Literal::Bool(false)),
            "null" => Some(Literal::Null),
            "in" => return Err(self.unexpected()),
            _ => None,
        };
        if let Some(literal) = literal {
            self.advance();
            return self.make(at, Kind::Literal(literal));
        }
        if let Some(length) = self.struct_name() {
            return self.object_literal(at, length, rooted);
        }
        if RESERVED.contains(&name) {
            self.faults.push(Fault::new(at, format!("reserved identifier: {name}")));
        }
        self.advance();
        let full = if rooted { format!(".{name}") } else { name.to_owned() };
        let open = self.start();
        if !self.eat("(") {
            return self.make(at, Kind::Ident(full.into()));
        }
        let args = self.arguments()?;
        match macros::expand(self, open, &full, None, args)? {
            Ok(expanded) => Ok(expanded),
            Err((_, args)) => self.call(open, full.trim_start_matches('.'), args),
        }
    }

    /// How many tokens make up `a.b.c` when `{` follows it.
    fn struct_name(&self) -> Option<usize> {
        let mut length = 1;
        loop {
            match &self.lexemes.get(self.at + length)?.token {
                Token::Sign("{") => return Some(length),
                Token::Sign(".") => match &self.lexemes.get(self.at + length + 1)?.token {
                    Token::Ident(_) => length += 2,
                    _ => return None,
                },
                _ => return None,
            }
        }
    }

    fn object_literal(&mut self, at: usize, length: usize, rooted: bool) -> Parsed<Expr> {
        let mut name = if rooted { ".".to_owned() } else { String::new() };
        for _ in 0..length {
            name.push_str(self.text());
            self.advance();
        }
        let open = self.start();
        self.expect("{")?;
        let mut fields = Vec::new();
        while !self.eat("}") {
            let optional = self.eat("?");
            let field = match self.token().clone() {
                Token::Ident(field) if !is_literal_word(&field) => field,
                Token::Quoted(field) => field,
                _ => return Err(self.unexpected()),
            };
            self.advance();
            let colon = self.start();
            self.expect(":")?;
            let value = self.expr()?;
            fields.push(FieldInit { at: colon, name: field, value, optional });
            if !self.eat(",") {
                self.expect("}")?;
                break;
            }
        }
        let _ = at;
        self.make(open, Kind::Struct { name: name.into(), fields })
    }

    fn items(&mut self) -> Parsed<Vec<Item>> {
        let mut items = Vec::new();
        while !self.eat("]") {
            let optional = self.eat("?");
            items.push(Item { value: self.expr()?, optional });
            if !self.eat(",") {
                self.expect("]")?;
                break;
            }
        }
        Ok(items)
    }

    fn entries(&mut self) -> Parsed<Vec<Entry>> {
        let mut entries = Vec::new();
        while !self.eat("}") {
            let optional = self.eat("?");
            let key = self.expr()?;
            self.expect(":")?;
            let value = self.expr()?;
            entries.push(Entry { key, value, optional });
            if !self.eat(",") {
                self.expect("}")?;
                break;
            }
        }
        Ok(entries)
    }
}

fn is_literal_word(name: &str) -> bool {
    matches!(name, "true" | "false" | "null" | "in")
}

fn children_height(kind: &Kind) -> usize {
    let highest = |exprs: &mut dyn Iterator<Item = &Expr>| exprs.map(|expr| expr.height).max().unwrap_or(0);
    match kind {
        Kind::Literal(_) | Kind::Ident(_) => 0,
        Kind::Select { operand, .. } => operand.height,
        Kind::Call { target, args, .. } => highest(&mut target.iter().map(|target| &**target).chain(args)),
        Kind::List(items) => highest(&mut items.iter().map(|item| &item.value)),
        Kind::Map(entries) => highest(&mut entries.iter().flat_map(|entry| [&entry.key, &entry.value])),
        Kind::Struct { fields, .. } => highest(&mut fields.iter().map(|field| &field.value)),
        Kind::Fold(fold) => {
            highest(&mut [&fold.range, &fold.init, &fold.condition, &fold.step, &fold.result].into_iter())
        }
    }
}
