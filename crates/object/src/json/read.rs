//! From JSON to the tree, in one pass along a schema.

use std::borrow::Cow;

use crate::decode::{
    DEPTH_MAX, DecodeError, Issue, Issues, KeySet, Step, Unfit, go_type, json_type, keeps, leaf, mismatch, path, put,
    zero,
};
use crate::schema::{Field, Or, Scalar, Schema, Shape, StructType, TypeId};
use crate::tree::{Key, Map, Tree};

/// Reads an object of type `ty`: its canonical tree, and the fields that were ignored.
///
/// # Errors
/// When the bytes are not JSON, too deep, or a value is not of its field's type.
pub fn decode(bytes: &[u8], schema: &Schema, ty: TypeId) -> Result<(Tree, Issues), DecodeError> {
    let mut reader = Reader::new(bytes, schema);
    let tree = reader.value(ty)?;
    reader.end()?;
    Ok((tree, reader.issues))
}

/// Reads any JSON value as it is: nulls and empty values are kept, the last of duplicate keys
/// counts.
///
/// # Errors
/// When the bytes are not JSON or too deep.
pub fn decode_untyped(bytes: &[u8]) -> Result<Tree, DecodeError> {
    Ok(decode_untyped_strict(bytes)?.0)
}

/// As [`decode_untyped`], with a report of duplicate keys.
///
/// # Errors
/// When the bytes are not JSON or too deep.
pub fn decode_untyped_strict(bytes: &[u8]) -> Result<(Tree, Issues), DecodeError> {
    static NO_TYPES: Schema = Schema { types: Vec::new(), lenient: false };
    let mut reader = Reader::new(bytes, &NO_TYPES);
    let tree = reader.untyped()?;
    reader.end()?;
    Ok((tree, reader.issues))
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    schema: &'a Schema,
    steps: Vec<Step<'a>>,
    depth: usize,
    /// Inside of an unknown field: it is named once, and nothing below it.
    ignoring: bool,
    issues: Issues,
}

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8], schema: &'a Schema) -> Self {
        Self { bytes, at: 0, schema, steps: Vec::new(), depth: 0, ignoring: false, issues: Issues::default() }
    }

    /// A value of a known type. Null becomes the type's zero value, or null where it has none.
    fn value(&mut self, ty: TypeId) -> Result<Tree, DecodeError> {
        let schema = self.schema;
        let first = self.peek()?;
        if first == b'n' {
            self.word("null")?;
            return Ok(Tree::Null);
        }
        match &schema.get(ty).shape {
            Shape::Scalar(Scalar::FieldsV1) | Shape::Any => self.untyped(),
            Shape::Scalar(scalar) => self.scalar(*scalar, ty),
            Shape::Struct(shape) if first == b'{' => self.structure(shape, ty),
            Shape::Map { value, .. } if first == b'{' => self.map(*value),
            Shape::List(list) if first == b'[' => self.list(list.item),
            Shape::Either(either) => match (first, either.or) {
                (b'{', _) => self.value(either.object),
                (b'[', Or::List) => self.list(either.object),
                (b't' | b'f', Or::Bool) | (b'[', Or::Strings) => self.untyped(),
                _ => self.refuse(ty),
            },
            _ if schema.is_lenient(ty) => self.untyped(),
            _ => self.refuse(ty),
        }
    }

    /// The value ahead is of the wrong type; whether it is well-formed comes first.
    fn refuse<T>(&mut self, ty: TypeId) -> Result<T, DecodeError> {
        let value = self.untyped()?;
        Err(mismatch(self.schema, &self.steps, json_type(&value), &go_type(self.schema, ty)))
    }

    fn scalar(&mut self, scalar: Scalar, ty: TypeId) -> Result<Tree, DecodeError> {
        let value = self.untyped()?;
        leaf(scalar, value).map_err(|unfit| match unfit {
            Unfit::Mismatch(value) => mismatch(self.schema, &self.steps, &value, &go_type(self.schema, ty)),
            Unfit::Other(message) => DecodeError::Type(message),
        })
    }

    fn structure(&mut self, shape: &'a StructType, ty: TypeId) -> Result<Tree, DecodeError> {
        self.enter()?;
        let mut map = Map::with_capacity(shape.fields.len().min(8));
        let mut seen = Seen::default();
        let mut kept = KeySet::default();
        let mut hint = 0;
        let mut more = self.open(b'{', b'}')?;
        while more {
            let raw = self.raw_key()?;
            match find(shape, raw, hint) {
                Some((index, field)) => {
                    hint = index + 1;
                    self.steps.push(Step::Field(name_of(field), ty));
                    if !seen.insert(index) {
                        self.issues.push(Issue::Duplicate(path(&self.steps)));
                        map.remove(field.name.as_str());
                    }
                    let value = self.value(field.ty)?;
                    self.steps.pop();
                    if keeps(field, &value) || (value.is_null() && self.schema.is_lenient(ty)) {
                        map.push_unchecked(field.name.clone(), value);
                    }
                }
                None => self.unknown(shape, raw, &mut map, &mut kept)?,
            }
            more = self.next(b'}')?;
        }
        self.depth -= 1;
        Ok(Tree::Map(map))
    }

    fn unknown(
        &mut self,
        shape: &StructType,
        raw: &'a [u8],
        map: &mut Map,
        kept: &mut KeySet,
    ) -> Result<(), DecodeError> {
        self.steps.push(Step::Key(as_written(raw)));
        if shape.preserve_unknown {
            let value = self.untyped()?;
            if put(map, kept, Key::Owned(unescape(raw).into()), value)? {
                self.issues.push(Issue::Duplicate(path(&self.steps)));
            }
        } else {
            self.issues.push(Issue::Unknown(path(&self.steps)));
            self.ignoring = true;
            self.untyped()?;
            self.ignoring = false;
        }
        self.steps.pop();
        Ok(())
    }

    fn map(&mut self, ty: TypeId) -> Result<Tree, DecodeError> {
        self.object(|reader| {
            let value = reader.value(ty)?;
            Ok(if value.is_null() && !reader.schema.is_lenient(ty) { zero(reader.schema, ty) } else { value })
        })
    }

    fn list(&mut self, ty: TypeId) -> Result<Tree, DecodeError> {
        self.items(|reader| {
            let value = reader.value(ty)?;
            Ok(if value.is_null() && !reader.schema.is_lenient(ty) { zero(reader.schema, ty) } else { value })
        })
    }

    /// Any value at all.
    fn untyped(&mut self) -> Result<Tree, DecodeError> {
        match self.peek()? {
            b'{' => self.object(Self::untyped),
            b'[' => self.items(Self::untyped),
            b'"' => {
                let raw = self.string()?;
                Ok(Tree::Str(match unescape(raw) {
                    Cow::Borrowed(text) => text.into(),
                    Cow::Owned(text) => text.into_boxed_str(),
                }))
            }
            b't' => self.word("true").map(|()| Tree::Bool(true)),
            b'f' => self.word("false").map(|()| Tree::Bool(false)),
            b'n' => self.word("null").map(|()| Tree::Null),
            b'-' | b'0'..=b'9' => self.number(),
            _ => Err(self.unexpected("looking for beginning of value")),
        }
    }

    fn object(&mut self, mut value: impl FnMut(&mut Self) -> Result<Tree, DecodeError>) -> Result<Tree, DecodeError> {
        self.enter()?;
        let mut map = Map::new();
        let mut seen = KeySet::default();
        let mut more = self.open(b'{', b'}')?;
        while more {
            let raw = self.raw_key()?;
            let key = unescape(raw);
            self.steps.push(Step::Key(as_written(raw)));
            let value = value(self)?;
            if put(&mut map, &mut seen, Key::Owned(key.into()), value)? && !self.ignoring {
                self.issues.push(Issue::Duplicate(path(&self.steps)));
            }
            self.steps.pop();
            more = self.next(b'}')?;
        }
        self.depth -= 1;
        Ok(Tree::Map(map))
    }

    fn items(&mut self, mut item: impl FnMut(&mut Self) -> Result<Tree, DecodeError>) -> Result<Tree, DecodeError> {
        self.enter()?;
        let mut items = Vec::new();
        let mut more = self.open(b'[', b']')?;
        while more {
            self.steps.push(Step::Index(items.len()));
            items.push(item(self)?);
            self.steps.pop();
            more = self.next(b']')?;
        }
        self.depth -= 1;
        Ok(Tree::List(items))
    }

    fn enter(&mut self) -> Result<(), DecodeError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX { Err(DecodeError::TooDeep) } else { Ok(()) }
    }

    /// Steps over an opening bracket; whether something is inside.
    fn open(&mut self, open: u8, close: u8) -> Result<bool, DecodeError> {
        debug_assert_eq!(self.bytes.get(self.at), Some(&open));
        self.at += 1;
        if self.peek()? == close {
            self.at += 1;
            return Ok(false);
        }
        Ok(true)
    }

    /// Steps over a comma or a closing bracket; whether more follows.
    fn next(&mut self, close: u8) -> Result<bool, DecodeError> {
        let found = self.peek()?;
        if found != b',' && found != close {
            return Err(self.unexpected(if close == b']' {
                "after array element"
            } else {
                "after object key:value pair"
            }));
        }
        self.at += 1;
        Ok(found == b',')
    }

    /// Steps over a key and its colon; the key as written.
    fn raw_key(&mut self) -> Result<&'a [u8], DecodeError> {
        if self.peek()? != b'"' {
            return Err(self.unexpected("looking for beginning of object key string"));
        }
        let key = self.string()?;
        if self.peek()? != b':' {
            return Err(self.unexpected("after object key"));
        }
        self.at += 1;
        Ok(key)
    }

    /// Steps over a string; what is between its quotes, as written.
    fn string(&mut self) -> Result<&'a [u8], DecodeError> {
        let start = self.at + 1;
        let mut at = start;
        loop {
            match self.bytes.get(at) {
                Some(b'"') => break,
                Some(b'\\') => at = self.escape(at)?,
                Some(0..=0x1f) => {
                    self.at = at;
                    return Err(self.unexpected("in string literal"));
                }
                Some(_) => at += 1,
                None => return Err(end_of_input()),
            }
        }
        self.at = at + 1;
        Ok(&self.bytes[start..at])
    }

    /// Checks the escape at `at`; where it ends.
    fn escape(&mut self, at: usize) -> Result<usize, DecodeError> {
        match self.bytes.get(at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(at + 2),
            Some(b'u') => {
                for place in at + 2..at + 6 {
                    match self.bytes.get(place) {
                        Some(byte) if byte.is_ascii_hexdigit() => {}
                        Some(_) => {
                            self.at = place;
                            return Err(self.unexpected("in \\u hexadecimal character escape"));
                        }
                        None => return Err(end_of_input()),
                    }
                }
                Ok(at + 6)
            }
            Some(_) => {
                self.at = at + 1;
                Err(self.unexpected("in string escape code"))
            }
            None => Err(end_of_input()),
        }
    }

    fn number(&mut self) -> Result<Tree, DecodeError> {
        let start = self.at;
        if self.bytes[self.at] == b'-' {
            self.at += 1;
        }
        match self.bytes.get(self.at) {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits(),
            Some(_) => return Err(self.unexpected("in numeric literal")),
            None => return Err(end_of_input()),
        }
        let mut whole = true;
        if self.bytes.get(self.at) == Some(&b'.') {
            whole = false;
            self.at += 1;
            self.some_digits("after decimal point in numeric literal")?;
        }
        if let Some(b'e' | b'E') = self.bytes.get(self.at) {
            whole = false;
            self.at += 1;
            if let Some(b'+' | b'-') = self.bytes.get(self.at) {
                self.at += 1;
            }
            self.some_digits("in exponent of numeric literal")?;
        }
        let text = std::str::from_utf8(&self.bytes[start..self.at]).unwrap_or_default();
        if whole && let Ok(number) = text.parse() {
            return Ok(Tree::Int(number));
        }
        match text.parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(Tree::Float(number)),
            _ => Err(mismatch(self.schema, &self.steps, &format!("number {text}"), "float64")),
        }
    }

    fn some_digits(&mut self, context: &str) -> Result<(), DecodeError> {
        match self.bytes.get(self.at) {
            Some(b'0'..=b'9') => {
                self.digits();
                Ok(())
            }
            Some(_) => Err(self.unexpected(context)),
            None => Err(end_of_input()),
        }
    }

    fn digits(&mut self) {
        while let Some(b'0'..=b'9') = self.bytes.get(self.at) {
            self.at += 1;
        }
    }

    fn word(&mut self, word: &str) -> Result<(), DecodeError> {
        for (place, wanted) in word.bytes().enumerate() {
            match self.bytes.get(self.at) {
                Some(byte) if *byte == wanted => self.at += 1,
                Some(_) => {
                    let wanted = char::from(wanted);
                    let context = format!("in literal {word} (expecting '{wanted}')");
                    debug_assert!(place > 0);
                    return Err(self.unexpected(&context));
                }
                None => return Err(end_of_input()),
            }
        }
        Ok(())
    }

    /// The next byte that is not white space.
    fn peek(&mut self) -> Result<u8, DecodeError> {
        while let Some(byte) = self.bytes.get(self.at) {
            match byte {
                b' ' | b'\t' | b'\n' | b'\r' => self.at += 1,
                byte => return Ok(*byte),
            }
        }
        Err(end_of_input())
    }

    /// Nothing but white space may follow.
    fn end(&mut self) -> Result<(), DecodeError> {
        match self.peek() {
            Ok(_) => Err(self.unexpected("after top-level value")),
            Err(_) => Ok(()),
        }
    }

    /// Go's words for a byte that does not belong here.
    fn unexpected(&self, context: &str) -> DecodeError {
        let shown = match self.bytes.get(self.at) {
            Some(b'\'') => r"'\''".to_owned(),
            Some(b'"') => "'\"'".to_owned(),
            Some(byte) => {
                let quoted = crate::errors::quote(&char::from(*byte).to_string());
                format!("'{}'", quoted.trim_matches('"'))
            }
            None => return end_of_input(),
        };
        DecodeError::Syntax(format!("invalid character {shown} {context}"))
    }
}

/// Which fields of a struct were met.
#[derive(Default)]
struct Seen {
    low: u128,
    high: Vec<usize>,
}

impl Seen {
    /// Whether `index` is new.
    fn insert(&mut self, index: usize) -> bool {
        if index < 128 {
            let bit = 1_u128 << index;
            let new = self.low & bit == 0;
            self.low |= bit;
            new
        } else if self.high.contains(&index) {
            false
        } else {
            self.high.push(index);
            true
        }
    }
}

/// The field with this key, as written. Objects mostly come in the order of their fields, so the
/// one behind the last found is tried first.
fn find<'a>(shape: &'a StructType, raw: &[u8], hint: usize) -> Option<(usize, &'a Field)> {
    if let Some(field) = shape.fields.get(hint)
        && name_of(field).as_bytes() == raw
    {
        return Some((hint, field));
    }
    let key = unescape(raw);
    shape.fields.iter().enumerate().find(|(_, field)| field.name == *key)
}

fn name_of(field: &Field) -> &str {
    field.name.as_str()
}

fn end_of_input() -> DecodeError {
    DecodeError::Syntax("unexpected end of JSON input".to_owned())
}

/// The inside of a string, for paths in messages.
fn as_written(raw: &[u8]) -> &str {
    std::str::from_utf8(raw).unwrap_or("\u{fffd}")
}

/// The inside of a string with its escapes resolved; what is no UTF-8 becomes U+FFFD, as in Go.
fn unescape(raw: &[u8]) -> Cow<'_, str> {
    let Some(first) = memchr::memchr(b'\\', raw) else { return String::from_utf8_lossy(raw) };
    let mut out = String::with_capacity(raw.len());
    out.push_str(&String::from_utf8_lossy(&raw[..first]));
    let mut rest = &raw[first..];
    while let [b'\\', code, tail @ ..] = rest {
        rest = tail;
        match code {
            b'b' => out.push('\u{8}'),
            b'f' => out.push('\u{c}'),
            b'n' => out.push('\n'),
            b'r' => out.push('\r'),
            b't' => out.push('\t'),
            b'u' => rest = unicode(tail, &mut out),
            other => out.push(char::from(*other)),
        }
        let plain = memchr::memchr(b'\\', rest).unwrap_or(rest.len());
        out.push_str(&String::from_utf8_lossy(&rest[..plain]));
        rest = &rest[plain..];
    }
    Cow::Owned(out)
}

/// Resolves the four digits behind `\u`, and the second half of a surrogate pair.
fn unicode<'a>(tail: &'a [u8], out: &mut String) -> &'a [u8] {
    let first = hex(tail);
    let rest = tail.get(4..).unwrap_or_default();
    if (0xd800..0xdc00).contains(&first)
        && let [b'\\', b'u', second @ ..] = rest
    {
        let low = hex(second);
        if (0xdc00..0xe000).contains(&low) {
            let code = 0x10000 + ((first - 0xd800) << 10) + (low - 0xdc00);
            out.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
            return second.get(4..).unwrap_or_default();
        }
    }
    out.push(char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER));
    rest
}

fn hex(digits: &[u8]) -> u32 {
    digits.iter().take(4).filter_map(|digit| char::from(*digit).to_digit(16)).fold(0, |sum, digit| sum << 4 | digit)
}
