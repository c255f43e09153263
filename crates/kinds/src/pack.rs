//! The types of the built-in kinds: `pack.bin`, written by `xtask schema-pack` (which says how it
//! reads), inflated and parsed once.

use std::collections::HashMap;
use std::io::Read as _;
use std::sync::OnceLock;

use skiff_object::schema::{
    Absent, Either, Field, ListKey, ListKind, ListType, Or, PatchStrategy, Scalar, Shape, StructType, Type, Wire,
};
use skiff_object::{Key, Schema, TypeId};

const PACKED: &[u8] = include_bytes!("pack.bin");

struct Pack {
    /// Named types first, sorted by name.
    schema: Schema,
    named: usize,
    /// Sorted by `apiVersion` and `kind`.
    kinds: Vec<((&'static str, &'static str), TypeId)>,
}

/// The types of every built-in kind, list and option.
pub fn schema() -> &'static Schema {
    &pack().schema
}

/// The type of objects with this `apiVersion` and `kind`: kinds, their lists, and what
/// subresources exchange. `Status`, the options and discovery documents are of `v1` and of
/// `meta.k8s.io/v1`.
pub fn type_of(api_version: &str, kind: &str) -> Option<TypeId> {
    let kinds = &pack().kinds;
    let place = kinds.binary_search_by_key(&(api_version, kind), |(key, _)| *key).ok()?;
    Some(kinds[place].1)
}

/// The type with this OpenAPI name: `io.k8s.api.core.v1.PodSpec`.
pub fn type_named(name: &str) -> Option<TypeId> {
    let named = &pack().schema.types[..pack().named];
    named.binary_search_by_key(&name, |ty| ty.name.as_str()).ok().map(|place| TypeId(place as u32))
}

fn pack() -> &'static Pack {
    static PACK: OnceLock<Pack> = OnceLock::new();
    PACK.get_or_init(|| {
        let mut text = String::new();
        let inflated = flate2::read::ZlibDecoder::new(PACKED).read_to_string(&mut text);
        assert!(inflated.is_ok(), "the pack is part of this binary");
        // Leaked once per process: every name in the schema is a slice of it.
        Parser::default().parse(Box::leak(text.into_boxed_str())).unwrap_or_else(|line| {
            unreachable!("the pack is generated and covered by a test, yet it has a line {line:?}")
        })
    })
}

/// Reads the text of a pack.
struct Parser {
    /// Named types first, in the order of the pack; anonymous ones behind them.
    types: Vec<Type>,
    named: usize,
    /// Anonymous types by how the pack writes them.
    anonymous: HashMap<&'static str, TypeId>,
    /// Structs that are atomic in one place: a copy of the type, made when all are read.
    atomic: Vec<(TypeId, TypeId)>,
    kinds: Vec<((&'static str, &'static str), TypeId)>,
    /// Types that are one letter, by that letter.
    letters: [Option<TypeId>; 128],
}

impl Default for Parser {
    fn default() -> Self {
        Self {
            types: Vec::new(),
            named: 0,
            anonymous: HashMap::new(),
            atomic: Vec::new(),
            kinds: Vec::new(),
            letters: [None; 128],
        }
    }
}

impl Parser {
    fn parse(mut self, text: &'static str) -> Result<Pack, &'static str> {
        let starts_type = |line: &&str| line.starts_with("T ") || line.starts_with("O ");
        self.named = text.lines().filter(starts_type).count();
        let unset = || Type { name: Key::Static(""), shape: Shape::Any };
        self.types.resize_with(self.named, unset);
        let mut place = 0;
        let mut lines = text.lines().peekable();
        while let Some(line) = lines.next() {
            let mut words = line.split(' ');
            match words.next() {
                Some("T") => {
                    let name = words.next().ok_or(line)?;
                    let mut ty = StructType { atomic: words.next() == Some("a"), ..StructType::default() };
                    let mut groups: Vec<(u32, Vec<Wire>)> = vec![(0, Vec::new())];
                    while let Some(line) = lines.next_if(|line| !is_top(line)) {
                        self.line(line, &mut ty.fields, &mut groups).ok_or(line)?;
                    }
                    ty.wire = groups.pop().map(|(_, wire)| sorted(wire)).ok_or(line)?;
                    self.types[place] = Type { name: name.into(), shape: Shape::Struct(ty) };
                    place += 1;
                }
                Some("O") => {
                    let (name, object, or) = (words.next(), words.next(), words.next());
                    let or = match or.ok_or(line)? {
                        "b" => Or::Bool,
                        "l" => Or::List,
                        _ => Or::Strings,
                    };
                    let object = self.ty(object.ok_or(line)?).ok_or(line)?;
                    let shape = Shape::Either(Either { object, or });
                    self.types[place] = Type { name: name.ok_or(line)?.into(), shape };
                    place += 1;
                }
                _ => {
                    let (api_version, kind, ty) = (words.next(), words.next(), words.next());
                    let ty = self.ty(ty.ok_or(line)?).ok_or(line)?;
                    self.kinds.push(((api_version.ok_or(line)?, kind.ok_or(line)?), ty));
                }
            }
        }
        Ok(self.finish())
    }

    fn finish(mut self) -> Pack {
        for (copy, original) in std::mem::take(&mut self.atomic) {
            let mut ty = self.types[original.0 as usize].clone();
            if let Shape::Struct(shape) = &mut ty.shape {
                shape.atomic = true;
            }
            self.types[copy.0 as usize] = ty;
        }
        // The generator sorts both; a pack that is not sorted would lose types silently.
        assert!(self.types[..self.named].is_sorted_by_key(|ty| ty.name.as_str()), "the pack is sorted by name");
        assert!(self.kinds.is_sorted_by_key(|(key, _)| *key), "the pack is sorted by kind");
        Pack { schema: Schema { types: self.types, lenient: false }, named: self.named, kinds: self.kinds }
    }

    /// A line inside of a struct.
    fn line(&mut self, line: &'static str, fields: &mut Vec<Field>, groups: &mut Vec<(u32, Vec<Wire>)>) -> Option<()> {
        if let Some(number) = line.strip_prefix("> ") {
            groups.push((number.parse().ok()?, Vec::new()));
            return Some(());
        }
        if line == "<" {
            let (number, items) = groups.pop()?;
            groups.last_mut()?.1.push(Wire::Group { number, items: sorted(items) });
            return Some(());
        }
        let field = self.field(line)?;
        if field.number > 0 {
            let index = fields.len() as u16;
            groups.last_mut()?.1.push(Wire::Field { number: field.number, index });
        }
        fields.push(field);
        Some(())
    }

    fn field(&mut self, line: &'static str) -> Option<Field> {
        let mut words = line.split(' ');
        let (name, number, ty, flags) = (words.next()?, words.next()?, words.next()?, words.next()?);
        let ty = self.ty(ty)?;
        let has = |flag| flags.contains(flag);
        let patch = match (has('M'), has('R')) {
            (true, true) => PatchStrategy::MergeRetainKeys,
            (true, false) => PatchStrategy::Merge,
            (false, true) => PatchStrategy::RetainKeys,
            (false, false) => PatchStrategy::Default,
        };
        Some(Field {
            name: name.into(),
            ty,
            number: number.parse().ok()?,
            absent: if has('z') { Absent::Omitted } else { self.absent(ty, has('p'), has('k')) },
            pointer: has('p'),
            patch,
            patch_merge_key: words.next().map(Key::Static),
            required: has('r'),
        })
    }

    /// How Go writes a field that was never set.
    fn absent(&self, ty: TypeId, pointer: bool, kept: bool) -> Absent {
        let by_value = match &self.types[ty.0 as usize].shape {
            // Named types are read in any order; a struct that is not there yet is still `Any`.
            _ if (ty.0 as usize) < self.named => Absent::EmptyStruct,
            Shape::Struct(_) | Shape::Either(_) => Absent::EmptyStruct,
            Shape::Scalar(Scalar::Time | Scalar::MicroTime) | Shape::Any => Absent::Null,
            Shape::Scalar(Scalar::Quantity | Scalar::IntOrString | Scalar::Duration) => Absent::Zero,
            Shape::Scalar(Scalar::Bytes | Scalar::FieldsV1) | Shape::List(_) | Shape::Map { .. } if kept => {
                Absent::Null
            }
            Shape::Scalar(_) if kept => Absent::Zero,
            _ => Absent::Omitted,
        };
        match (pointer, kept) {
            (true, true) => Absent::Null,
            (true, false) => Absent::Omitted,
            (false, _) => by_value,
        }
    }

    /// A type as the pack writes it.
    fn ty(&mut self, text: &'static str) -> Option<TypeId> {
        if let Some(place) = text.strip_prefix('#') {
            return Some(TypeId(place.parse().ok()?));
        }
        let letter = match text.as_bytes() {
            [letter @ 0..128] => Some(usize::from(*letter)),
            _ => None,
        };
        let known = letter.map_or_else(|| self.anonymous.get(text).copied(), |letter| self.letters[letter]);
        if known.is_some() {
            return known;
        }
        let shape = match text.strip_prefix('!') {
            Some(rest) if rest.starts_with('#') => {
                let original = self.ty(rest)?;
                self.atomic.push((TypeId(self.types.len() as u32), original));
                // A struct as far as its absence goes, until the original is known.
                Shape::Struct(StructType::default())
            }
            Some(rest) => Shape::Map { value: self.ty(rest.strip_prefix('{')?)?, atomic: true },
            None => self.shape(text)?,
        };
        let ty = TypeId(self.types.len() as u32);
        self.types.push(Type { name: Key::Static(""), shape });
        // The atomic copy was numbered before anything its own expression added.
        match letter {
            Some(letter) => self.letters[letter] = Some(ty),
            None => {
                self.anonymous.insert(text, ty);
            }
        }
        Some(ty)
    }

    fn shape(&mut self, text: &'static str) -> Option<Shape> {
        let rest = text.get(1..)?;
        Some(match text.as_bytes().first()? {
            b'{' => Shape::Map { value: self.ty(rest)?, atomic: false },
            b'[' => self.list(rest, ListKind::Atomic)?,
            b'<' => self.list(rest, ListKind::Set)?,
            b'(' => {
                let (keys, item) = rest.split_once(')')?;
                self.list(item, ListKind::Map(keys.split(',').map(list_key).collect()))?
            }
            b'w' => match self.shape(rest)? {
                Shape::List(list) => Shape::List(ListType { wrapped: true, ..list }),
                _ => return None,
            },
            b'*' => Shape::Any,
            letter => Shape::Scalar(scalar(*letter)?),
        })
    }

    fn list(&mut self, item: &'static str, kind: ListKind) -> Option<Shape> {
        Some(Shape::List(ListType { item: self.ty(item)?, kind, wrapped: false }))
    }
}

fn is_top(line: &str) -> bool {
    line.starts_with("T ") || line.starts_with("O ") || line.starts_with("K ")
}

fn sorted(mut wire: Vec<Wire>) -> Vec<Wire> {
    wire.sort_by_key(Wire::number);
    wire
}

fn list_key(text: &'static str) -> ListKey {
    let (name, default) = match text.split_once('=') {
        Some((name, default)) => (name, Some(default.into())),
        None => (text, None),
    };
    ListKey { name: name.into(), default }
}

fn scalar(letter: u8) -> Option<Scalar> {
    Some(match letter {
        b's' => Scalar::String,
        b'b' => Scalar::Bool,
        b'i' => Scalar::Int32,
        b'l' => Scalar::Int64,
        b'd' => Scalar::Double,
        b'y' => Scalar::Bytes,
        b'q' => Scalar::Quantity,
        b'o' => Scalar::IntOrString,
        b't' => Scalar::Time,
        b'u' => Scalar::MicroTime,
        b'D' => Scalar::Duration,
        b'f' => Scalar::FieldsV1,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(ty: &str, name: &str) -> &'static Field {
        schema().field(type_named(ty).unwrap(), name).unwrap()
    }

    #[test]
    fn the_pack_reads_and_every_reference_leads_somewhere() {
        let count = schema().types.len() as u32;
        let check = |ty: TypeId| assert!(ty.0 < count);
        for ty in &schema().types {
            match &ty.shape {
                Shape::Struct(shape) => shape.fields.iter().for_each(|field| check(field.ty)),
                Shape::Map { value, .. } => check(*value),
                Shape::List(list) => check(list.item),
                Shape::Either(either) => check(either.object),
                Shape::Scalar(_) | Shape::Any => {}
            }
        }
    }

    #[test]
    fn fields_know_what_go_writes_when_they_are_absent() {
        for (ty, name, absent) in [
            ("io.k8s.api.core.v1.Pod", "metadata", Absent::EmptyStruct),
            ("io.k8s.api.core.v1.PodSpec", "containers", Absent::Null),
            ("io.k8s.api.core.v1.PodSpec", "hostNetwork", Absent::Omitted),
            ("io.k8s.api.core.v1.PodCondition", "lastProbeTime", Absent::Null),
            ("io.k8s.api.core.v1.PodCondition", "type", Absent::Zero),
            ("io.k8s.api.core.v1.ServicePort", "targetPort", Absent::Zero),
            ("io.k8s.api.apps.v1.DeploymentSpec", "selector", Absent::Null),
            ("io.k8s.api.apps.v1.DeploymentSpec", "replicas", Absent::Omitted),
            ("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta", "creationTimestamp", Absent::Omitted),
        ] {
            assert_eq!(field(ty, name).absent, absent, "{ty}.{name}");
        }
    }

    #[test]
    fn lists_with_keys_know_the_default_of_an_absent_key() {
        let ports = field("io.k8s.api.core.v1.ServiceSpec", "ports");
        let Shape::List(list) = &schema().get(ports.ty).shape else { panic!("a list") };
        let ListKind::Map(keys) = &list.kind else { panic!("a list with keys") };
        assert_eq!(keys.len(), 2);
        assert_eq!(keys[0].name.as_str(), "port");
        assert_eq!(keys[1].default.as_ref().map(Key::as_str), Some("TCP"));
        assert_eq!(ports.patch, PatchStrategy::Merge);
        assert_eq!(ports.patch_merge_key.as_ref().map(Key::as_str), Some("port"));
    }

    #[test]
    fn embedded_structs_are_flat_in_json_and_groups_in_protobuf() {
        let Shape::Struct(volume) = &schema().get(type_named("io.k8s.api.core.v1.Volume").unwrap()).shape else {
            panic!("a struct")
        };
        assert!(volume.field("hostPath").is_some());
        assert!(matches!(&volume.wire[..], [Wire::Field { number: 1, .. }, Wire::Group { number: 2, .. }]));
    }
}
