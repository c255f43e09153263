//! JSON for people: two spaces, as Go's encoder indents.

/// Indents JSON that is known to be well formed.
pub(crate) fn indent(json: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(json.len() * 2);
    let mut depth = 0_usize;
    let mut in_string = false;
    let mut escaped = false;
    for (at, byte) in json.iter().copied().enumerate() {
        if in_string {
            out.push(byte);
            in_string = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
            continue;
        }
        match byte {
            b'{' | b'[' => {
                out.push(byte);
                if !matches!(json.get(at + 1), Some(b'}' | b']')) {
                    depth += 1;
                    line(&mut out, depth);
                }
            }
            b'}' | b']' => {
                if !matches!(at.checked_sub(1).map(|before| json[before]), Some(b'{' | b'[')) {
                    depth = depth.saturating_sub(1);
                    line(&mut out, depth);
                }
                out.push(byte);
            }
            b',' => {
                out.push(byte);
                line(&mut out, depth);
            }
            b':' => out.extend_from_slice(b": "),
            b'"' => {
                in_string = true;
                out.push(byte);
            }
            byte if byte.is_ascii_whitespace() => {}
            byte => out.push(byte),
        }
    }
    out
}

fn line(out: &mut Vec<u8>, depth: usize) {
    out.push(b'\n');
    out.resize(out.len() + depth * 2, b' ');
}

#[cfg(test)]
mod tests {
    #[test]
    fn empty_values_stay_on_their_line_and_strings_stay_as_they_are() {
        let pretty = super::indent(br#"{"a":{},"b":["x,\"{",1],"c":{"d":[]}}"#);
        assert_eq!(
            String::from_utf8(pretty).unwrap(),
            "{\n  \"a\": {},\n  \"b\": [\n    \"x,\\\"{\",\n    1\n  ],\n  \"c\": {\n    \"d\": []\n  }\n}"
        );
    }
}
