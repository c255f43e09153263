//! Text to tokens.

use crate::ast::Literal;
use crate::error::Fault;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Token {
    /// A name; `true`, `false`, `null` and `in` are told apart by the parser.
    Ident(Box<str>),
    /// A name in backquotes, which only selects fields.
    Quoted(Box<str>),
    Literal(Literal),
    /// A whole number as written, without its sign: `-9223372036854775808` has one only with it.
    Int(Box<str>),
    /// Punctuation and operators.
    Sign(&'static str),
    End,
}

/// A token and the bytes it covers.
#[derive(Clone, Debug)]
pub(crate) struct Lexeme {
    pub(crate) token: Token,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// Longer signs first.
const SIGNS: &[&str] = &[
    "==", "!=", "<=", ">=", "&&", "||", "<", ">", "+", "-", "*", "/", "%", "!", "?", ":", ".", ",", "(", ")", "[", "]",
    "{", "}",
];

pub(crate) struct Lexer<'s> {
    source: &'s str,
    at: usize,
    pub(crate) faults: Vec<Fault>,
}

/// All tokens of `source`, the last of which is [`Token::End`].
pub(crate) fn lex(source: &str) -> (Vec<Lexeme>, Vec<Fault>) {
    let mut lexer = Lexer { source, at: 0, faults: Vec::new() };
    let mut lexemes = Vec::new();
    loop {
        lexer.skip_blank();
        let start = lexer.at;
        let Some(token) = lexer.next() else { continue };
        let end = token == Token::End;
        lexemes.push(Lexeme { token, start, end: lexer.at });
        if end {
            return (lexemes, lexer.faults);
        }
    }
}

impl<'s> Lexer<'s> {
    fn rest(&self) -> &'s str {
        &self.source[self.at..]
    }

    fn peek(&self) -> Option<u8> {
        self.source.as_bytes().get(self.at).copied()
    }

    fn skip_blank(&mut self) {
        loop {
            let rest = self.rest();
            let trimmed = rest.trim_start_matches(['\t', ' ', '\r', '\n', '\u{c}']);
            self.at += rest.len() - trimmed.len();
            if !trimmed.starts_with("//") {
                return;
            }
            self.at += trimmed.find('\n').unwrap_or(trimmed.len());
        }
    }

    /// The next token; `None` when what stood there was not one and has been reported.
    fn next(&mut self) -> Option<Token> {
        let Some(first) = self.peek() else { return Some(Token::End) };
        if let Some(token) = self.text_literal() {
            return token;
        }
        match first {
            b'0'..=b'9' => return Some(self.number()),
            b'.' if self.rest().as_bytes().get(1).is_some_and(u8::is_ascii_digit) => return Some(self.number()),
            b'A'..=b'Z' | b'a'..=b'z' | b'_' => {
                let len = self.rest().bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count();
                return Some(Token::Ident(self.take(len).into()));
            }
            b'`' => {
                let inner =
                    self.rest()[1..].bytes().take_while(|b| b.is_ascii_alphanumeric() || b"_.-/ ".contains(b)).count();
                if inner > 0 && self.rest().as_bytes().get(inner + 1) == Some(&b'`') {
                    let text = self.take(inner + 2);
                    return Some(Token::Quoted(text[1..=inner].into()));
                }
            }
            _ => {
                if let Some(sign) = SIGNS.iter().find(|sign| self.rest().starts_with(**sign)) {
                    self.at += sign.len();
                    return Some(Token::Sign(sign));
                }
            }
        }
        let len = self.rest().chars().next().map_or(1, char::len_utf8);
        let start = self.at;
        let text = self.take(len);
        self.unknown(start, text);
        None
    }

    fn unknown(&mut self, at: usize, text: &str) {
        self.faults.push(Fault::new(at, format!("Syntax error: token recognition error at: '{text}'")));
    }

    fn take(&mut self, len: usize) -> &'s str {
        let text = &self.rest()[..len];
        self.at += len;
        text
    }

    fn digits(&mut self) {
        while self.peek().is_some_and(|b| b.is_ascii_digit()) {
            self.at += 1;
        }
    }

    fn number(&mut self) -> Token {
        let start = self.at;
        let rest = self.rest().as_bytes();
        if rest.len() > 2 && rest[0] == b'0' && rest[1] == b'x' && rest[2].is_ascii_hexdigit() {
            self.at += 2;
            while self.peek().is_some_and(|b| b.is_ascii_hexdigit()) {
                self.at += 1;
            }
            return self.whole(start);
        }
        self.digits();
        let mut float = false;
        let after = |lexer: &Self, n: usize| lexer.source.as_bytes().get(lexer.at + n).copied().unwrap_or(0);
        if self.peek() == Some(b'.') && after(self, 1).is_ascii_digit() {
            float = true;
            self.at += 1;
            self.digits();
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            let signed = usize::from(matches!(after(self, 1), b'+' | b'-'));
            if after(self, 1 + signed).is_ascii_digit() {
                float = true;
                self.at += 1 + signed;
                self.digits();
            }
        }
        if !float {
            return self.whole(start);
        }
        let text = &self.source[start..self.at];
        match text.parse::<f64>() {
            Ok(number) if number.is_finite() => Token::Literal(Literal::Double(number)),
            _ => {
                self.faults.push(Fault::new(start, "invalid double literal"));
                Token::Literal(Literal::Double(0.0))
            }
        }
    }

    fn whole(&mut self, start: usize) -> Token {
        let text = &self.source[start..self.at];
        if !matches!(self.peek(), Some(b'u' | b'U')) {
            return Token::Int(text.into());
        }
        self.at += 1;
        let parsed = match text.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16),
            None => text.parse(),
        };
        Token::Literal(Literal::Uint(parsed.unwrap_or_else(|_| {
            self.faults.push(Fault::new(start, "invalid uint literal"));
            0
        })))
    }

    /// A string or bytes literal, when one begins here: the outer `None` says it does not.
    fn text_literal(&mut self) -> Option<Option<Token>> {
        let rest = self.rest();
        let prefix = rest.bytes().take(2).take_while(|b| b"rRbB".contains(b)).count();
        let (letters, body) = rest.split_at(prefix);
        let lower = letters.to_ascii_lowercase();
        if !matches!(lower.as_str(), "" | "r" | "b" | "br" | "rb") {
            return None;
        }
        let quote = ["\"\"\"", "'''", "\"", "'"].into_iter().find(|quote| body.starts_with(quote))?;
        let (raw, bytes) = (lower.contains('r'), lower.contains('b'));
        let start = self.at;
        let Some(len) = closing(&body[quote.len()..], quote, raw) else {
            let text = self.take(rest.len());
            self.unknown(start, text);
            return Some(None);
        };
        let inner = &body[quote.len()..quote.len() + len];
        self.at += prefix + 2 * quote.len() + len;
        // As in Go's compiler, a carriage return in a literal is a line end.
        let inner = inner.replace("\r\n", "\n").replace('\r', "\n");
        let unescaped = if raw { Ok(inner.into_bytes()) } else { unescape(&inner, bytes) };
        let literal = match unescaped {
            Ok(octets) if bytes => Literal::Bytes(octets.into()),
            Ok(octets) => Literal::Str(String::from_utf8_lossy(&octets).into()),
            Err(message) => {
                self.faults.push(Fault::new(start, message));
                Literal::Str("".into())
            }
        };
        Some(Some(Token::Literal(literal)))
    }
}

/// How many bytes of `body` come before the closing quote.
fn closing(body: &str, quote: &str, raw: bool) -> Option<usize> {
    let bytes = body.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        if body.as_bytes()[at..].starts_with(quote.as_bytes()) {
            return Some(at);
        }
        match bytes[at] {
            b'\\' if !raw => at += 2,
            b'\n' | b'\r' if quote.len() == 1 => return None,
            _ => at += 1,
        }
    }
    None
}

/// Resolves escapes. In bytes `\x` and octal escapes are octets, in strings code points.
fn unescape(text: &str, bytes: bool) -> Result<Vec<u8>, &'static str> {
    const INVALID: &str = "unable to unescape string";
    let mut out = Vec::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        let escape = chars.next().ok_or("unable to unescape string, found '\\' as last character")?;
        let (digits, radix) = match escape {
            'a' => (Err(7), 0),
            'b' => (Err(8), 0),
            'f' => (Err(12), 0),
            'n' => (Err(10), 0),
            'r' => (Err(13), 0),
            't' => (Err(9), 0),
            'v' => (Err(11), 0),
            '\\' | '\'' | '"' | '`' | '?' => (Err(escape as u8), 0),
            'x' | 'X' => (Ok(2), 16),
            'u' if !bytes => (Ok(4), 16),
            'U' if !bytes => (Ok(8), 16),
            '0'..='3' => (Ok(2), 8),
            _ => return Err(INVALID),
        };
        let count = match digits {
            Err(octet) => {
                out.push(octet);
                continue;
            }
            Ok(count) => count,
        };
        let mut number = if radix == 8 { escape.to_digit(8).unwrap_or(0) } else { 0 };
        for _ in 0..count {
            let digit = chars.next().and_then(|c| c.to_digit(radix)).ok_or(INVALID)?;
            number = number.wrapping_mul(radix).wrapping_add(digit);
        }
        if bytes {
            out.push(u8::try_from(number).map_err(|_| INVALID)?);
        } else {
            let c = char::from_u32(number).ok_or("invalid unicode code point")?;
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }
    Ok(out)
}
