//! From YAML to the tree.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, Tag};

use crate::conform::conform;
use crate::decode::{DEPTH_MAX, DecodeError, Issue, Issues, KEYS_MAX, KeySet, put};
use crate::json;
use crate::schema::{Schema, TypeId};
use crate::tree::{Key, Map, Tree};
use crate::yaml::resolve::resolve;

/// How many values aliases may add. A few lines of nested aliases could otherwise fill all memory.
const ALIASED_VALUES_MAX: usize = 100_000;

/// How many values anchors may keep for aliases. Anchors around anchors keep the innermost once each.
const ANCHORED_VALUES_MAX: usize = 1_000_000;

/// Reads an object of type `ty`: its canonical tree, and the fields that were ignored.
///
/// # Errors
/// When the bytes are not YAML, too deep, or a value is not of its field's type.
pub fn decode(bytes: &[u8], schema: &Schema, ty: TypeId) -> Result<(Tree, Issues), DecodeError> {
    let (tree, mut issues) = decode_untyped_strict(bytes)?;
    let (tree, ignored) = conform(tree, schema, ty)?;
    issues.extend(ignored);
    Ok((tree, issues))
}

/// Reads any value as it is: nulls are kept, the last of duplicate keys counts.
///
/// # Errors
/// When the bytes are not YAML or too deep.
pub fn decode_untyped(bytes: &[u8]) -> Result<Tree, DecodeError> {
    Ok(decode_untyped_strict(bytes)?.0)
}

/// As [`decode_untyped`], with a report of duplicate keys.
///
/// # Errors
/// When the bytes are not YAML or too deep.
pub fn decode_untyped_strict(bytes: &[u8]) -> Result<(Tree, Issues), DecodeError> {
    // What clients send as YAML is mostly JSON. Duplicates have other words and numbers in YAML.
    if bytes.trim_ascii_start().first() == Some(&b'{')
        && let Ok((tree, issues)) = json::decode_untyped_strict(bytes)
        && issues.is_empty()
    {
        return Ok((tree, issues));
    }
    let text = std::str::from_utf8(bytes)
        .map_err(|error| syntax(&format!("invalid leading UTF-8 octet at byte {}", error.valid_up_to())))?;
    let mut reader = Reader::default();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| scan_error(&error))?;
        if reader.event(event, span)? == Progress::Done {
            break;
        }
    }
    Ok((reader.root.unwrap_or_default(), reader.issues))
}

fn syntax(why: &str) -> DecodeError {
    DecodeError::Syntax(format!("error converting YAML to JSON: yaml: {why}"))
}

fn scan_error(error: &ScanError) -> DecodeError {
    // The scanner has a limit of its own for lists and maps in brackets.
    if error.info().contains("recursion limit") {
        return DecodeError::TooDeep;
    }
    syntax(&format!("line {}: {}", error.marker().line(), error.info()))
}

#[derive(PartialEq, Eq)]
enum Progress {
    More,
    Done,
}

/// Builds the tree without recursion.
#[derive(Default)]
struct Reader {
    open: Vec<Open>,
    anchors: HashMap<usize, Tree>,
    anchored: usize,
    aliased: usize,
    root: Option<Tree>,
    issues: Issues,
}

/// A list or map that is not complete.
struct Open {
    anchor: usize,
    content: Content,
}

enum Content {
    List(Vec<Tree>),
    Map {
        map: Map,
        seen: KeySet,
        /// The key whose value comes next.
        key: Option<String>,
        /// Whether that key is a plain `<<`; in quotes it is a key like any other.
        merges: bool,
        /// What `<<` named, to be merged at the end: own keys come first.
        merge: Vec<Tree>,
    },
}

impl Reader {
    fn event(&mut self, event: Event<'_>, span: Span) -> Result<Progress, DecodeError> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let value = scalar(&text, style, tag.as_deref())?;
                self.value(value, anchor, Some(style), span)?;
            }
            Event::SequenceStart(anchor, _) => self.begin(anchor, Content::List(Vec::new()))?,
            Event::MappingStart(anchor, _) => {
                let content = Content::Map {
                    map: Map::new(),
                    seen: KeySet::default(),
                    key: None,
                    merges: false,
                    merge: Vec::new(),
                };
                self.begin(anchor, content)?;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(open) = self.open.pop() {
                    let value = open.content.close()?;
                    self.value(value, open.anchor, None, span)?;
                }
            }
            Event::Alias(anchor) => {
                let Some(value) = self.anchors.get(&anchor) else {
                    return Err(syntax("anchor value contains itself"));
                };
                self.aliased += value.size();
                if self.aliased > ALIASED_VALUES_MAX {
                    return Err(syntax("document contains excessive aliasing"));
                }
                if self.open.len() + value.depth() > DEPTH_MAX {
                    return Err(DecodeError::TooDeep);
                }
                let value = value.clone();
                self.value(value, 0, None, span)?;
            }
            Event::DocumentEnd | Event::StreamEnd => return Ok(Progress::Done),
            Event::DocumentStart(_) | Event::StreamStart | Event::Nothing => {}
        }
        Ok(Progress::More)
    }

    fn begin(&mut self, anchor: usize, content: Content) -> Result<(), DecodeError> {
        if self.open.len() >= DEPTH_MAX {
            return Err(DecodeError::TooDeep);
        }
        self.open.push(Open { anchor, content });
        Ok(())
    }

    /// A complete value, or a key. `style` is how a scalar stands in the text.
    fn value(&mut self, value: Tree, anchor: usize, style: Option<ScalarStyle>, span: Span) -> Result<(), DecodeError> {
        if anchor > 0 {
            self.anchored += value.size();
            if self.anchored > ANCHORED_VALUES_MAX {
                return Err(syntax("document contains excessive aliasing"));
            }
            self.anchors.insert(anchor, value.clone());
        }
        let Some(open) = self.open.last_mut() else {
            self.root = Some(value);
            return Ok(());
        };
        match &mut open.content {
            Content::List(items) => items.push(value),
            Content::Map { key: slot @ None, merges, .. } => {
                let key = key(&value, style.is_some())?;
                *merges = key == "<<" && style == Some(ScalarStyle::Plain);
                *slot = Some(key);
            }
            Content::Map { map, seen, key, merges, merge } => {
                let key = key.take().unwrap_or_default();
                if *merges {
                    merge.push(value);
                    return Ok(());
                }
                if put(map, seen, Key::from(key.clone()), value)? {
                    self.issues.push(Issue::Repeated { line: span.start.line(), key });
                }
            }
        }
        Ok(())
    }
}

impl Content {
    fn close(self) -> Result<Tree, DecodeError> {
        let (mut map, merge) = match self {
            Self::List(items) => return Ok(Tree::List(items)),
            Self::Map { map, merge, .. } => (map, merge),
        };
        for source in merge {
            let sources = match source {
                Tree::List(sources) => sources,
                source => vec![source],
            };
            for source in sources {
                let Tree::Map(source) = source else {
                    return Err(syntax("map merge requires map or sequence of maps as the value"));
                };
                if map.len() + source.len() > KEYS_MAX {
                    return Err(DecodeError::TooManyKeys);
                }
                for (key, value) in source {
                    map.entry_or(key, || value);
                }
            }
        }
        Ok(Tree::Map(map))
    }
}

/// A key as JSON has it: `true` and `8` become text.
fn key(value: &Tree, is_scalar: bool) -> Result<String, DecodeError> {
    Ok(match value {
        Tree::Str(text) => text.to_string(),
        Tree::Bool(value) => value.to_string(),
        Tree::Int(number) => number.to_string(),
        Tree::Float(number) => number.to_string(),
        Tree::Null if is_scalar => "null".to_owned(),
        Tree::Null | Tree::List(_) | Tree::Map(_) => return Err(syntax("unsupported map key: a list or a map")),
    })
}

fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Result<Tree, DecodeError> {
    let core = tag.filter(|tag| tag.is_yaml_core_schema()).map(|tag| tag.suffix.as_str());
    let value = match core {
        Some("str") => text.into(),
        Some("binary") => {
            let clean: String = text.split_whitespace().collect();
            let bytes = STANDARD.decode(clean).map_err(|_| syntax("!!binary value contains invalid base64 data"))?;
            String::from_utf8_lossy(&bytes).into_owned().into()
        }
        Some("null" | "bool" | "int" | "float") => resolve(text),
        _ if style == ScalarStyle::Plain && tag.is_none() => resolve(text),
        _ => text.into(),
    };
    match value {
        Tree::Float(number) if !number.is_finite() => {
            Err(DecodeError::Syntax(format!("error converting YAML to JSON: json: unsupported value: {number}")))
        }
        value => Ok(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> String {
        match decode_untyped(text.as_bytes()) {
            Ok(tree) => String::from_utf8(json::encode_untyped(&tree)).unwrap(),
            Err(error) => format!("error: {error}"),
        }
    }

    #[test]
    fn yaml_is_a_notation_for_json() {
        assert_eq!(json("a: [1, yes, ~, 'yes']\nb:\n- c: d\n"), r#"{"a":[1,true,null,"yes"],"b":[{"c":"d"}]}"#);
        assert_eq!(json("8: x\ntrue: z\n"), r#"{"8":"x","true":"z"}"#);
        assert_eq!(json("text: |\n  one\n  two\n"), r#"{"text":"one\ntwo\n"}"#);
        assert_eq!(json(""), "null");
        assert_eq!(json("a: 1\n---\nb: 2\n"), r#"{"a":1}"#);
    }

    #[test]
    fn anchors_and_merge_keys_are_copied() {
        assert_eq!(
            json("base: &b {x: 1, z: 2}\nuse:\n  <<: *b\n  z: 3\n"),
            r#"{"base":{"x":1,"z":2},"use":{"z":3,"x":1}}"#
        );
    }

    #[test]
    fn a_billion_laughs_is_cut_short() {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..12 {
            let list = vec![format!("*a{}", level - 1); 10].join(", ");
            text.push_str(&format!("a{level}: &a{level} [{list}]\n"));
        }
        assert!(json(&text).contains("excessive aliasing"));
    }

    #[test]
    fn anchors_around_anchors_do_not_fill_memory() {
        let levels = 200;
        let open: String = (0..levels).map(|level| format!("&a{level} [")).collect();
        let text = format!("{open}{}{}", "1,".repeat(10_000), "]".repeat(levels));
        assert!(json(&text).contains("excessive aliasing"));
        assert!(json("a: &a [1]\nb: *a\n").contains("\"b\":[1]"));
    }

    #[test]
    fn a_merge_key_in_quotes_is_a_key() {
        assert_eq!(json("'<<': {x: 1}\n\"<<\": {z: 1}\n"), r#"{"<<":{"z":1}}"#.replace('<', "\\u003c"));
    }

    #[test]
    fn nesting_is_limited() {
        let deep = "[".repeat(10_000);
        assert_eq!(decode_untyped(deep.as_bytes()), Err(DecodeError::TooDeep));
    }

    #[test]
    fn repeated_keys_are_named_with_their_lines() {
        let (_, issues) = decode_untyped_strict(b"a: 1\nb: 2\na: 3\nb: 4\n").unwrap();
        assert_eq!(
            issues.to_string(),
            "yaml: unmarshal errors:\n  line 3: key \"a\" already set in map\n  line 4: key \"b\" already set in map"
        );
    }
}
