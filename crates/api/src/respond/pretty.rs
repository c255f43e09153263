//! JSON for people: two spaces, as Go's encoder indents.

/// Indents JSON that is known to be well formed.
pub(crate) fn indent(json: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(json.len() * 2);
    Indent::default().push(json, &mut out);
    out
}

/// Indents JSON that comes in parts.
#[derive(Default)]
pub(crate) struct Indent {
    depth: usize,
    in_string: bool,
    escaped: bool,
    /// An object or list has just begun; whether it is empty, the next byte says.
    opened: bool,
}

impl Indent {
    /// Appends the next part.
    pub(crate) fn push(&mut self, json: &[u8], out: &mut impl Extend<u8>) {
        for byte in json.iter().copied() {
            if self.in_string {
                out.extend([byte]);
                self.in_string = self.escaped || byte != b'"';
                self.escaped = !self.escaped && byte == b'\\';
                continue;
            }
            if byte.is_ascii_whitespace() {
                continue;
            }
            let closes = matches!(byte, b'}' | b']');
            match (std::mem::take(&mut self.opened), closes) {
                (true, false) => {
                    self.depth += 1;
                    self.line(out);
                }
                (false, true) => {
                    self.depth = self.depth.saturating_sub(1);
                    self.line(out);
                }
                _ => {}
            }
            out.extend([byte]);
            match byte {
                b'{' | b'[' => self.opened = true,
                b',' => self.line(out),
                b':' => out.extend([b' ']),
                b'"' => self.in_string = true,
                _ => {}
            }
        }
    }

    fn line(&self, out: &mut impl Extend<u8>) {
        out.extend(std::iter::once(b'\n').chain(std::iter::repeat_n(b' ', self.depth * 2)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JSON: &[u8] = br#"{"a":{},"b":["x,\"{",1],"c":{"d":[]}}"#;

    #[test]
    fn empty_values_stay_on_their_line_and_strings_stay_as_they_are() {
        assert_eq!(
            String::from_utf8(indent(JSON)).unwrap(),
            "{\n  \"a\": {},\n  \"b\": [\n    \"x,\\\"{\",\n    1\n  ],\n  \"c\": {\n    \"d\": []\n  }\n}"
        );
    }

    #[test]
    fn parts_are_indented_as_the_whole_is() {
        for cut in 0..JSON.len() {
            let (mut parts, mut out) = (Indent::default(), Vec::new());
            parts.push(&JSON[..cut], &mut out);
            parts.push(&JSON[cut..], &mut out);
            assert_eq!(out, indent(JSON));
        }
    }
}
