//! From a tree as someone wrote it to the canonical tree of a type: what [`crate::json::decode`]
//! does to bytes, done to a tree that already exists (the result of a patch, YAML).

use crate::decode::{DecodeError, Issue, Issues, Step, Unfit, go_type, json_type, keeps, leaf, mismatch, path, zero};
use crate::schema::{Or, Scalar, Schema, Shape, StructType, TypeId};
use crate::tree::{Map, Tree};

/// Gives the canonical tree of `tree` as an object of type `ty`, and the fields that were ignored.
///
/// # Errors
/// When a value is not of its field's type.
pub fn conform(tree: Tree, schema: &Schema, ty: TypeId) -> Result<(Tree, Issues), DecodeError> {
    let mut issues = Issues::default();
    let tree = Conform { schema, issues: &mut issues }.value(tree, ty, &mut Vec::new())?;
    Ok((tree, issues))
}

struct Conform<'a> {
    schema: &'a Schema,
    issues: &'a mut Issues,
}

/// The way from the root. Owned keys, because the tree is taken apart on the way.
type Steps<'a> = Vec<OwnedStep<'a>>;

enum OwnedStep<'a> {
    Field(&'a str, TypeId),
    Key(Box<str>),
    Index(usize),
}

fn borrowed<'b>(steps: &'b Steps<'_>) -> Vec<Step<'b>> {
    let borrow = |step: &'b OwnedStep<'_>| match step {
        OwnedStep::Field(name, owner) => Step::Field(name, *owner),
        OwnedStep::Key(key) => Step::Key(key),
        OwnedStep::Index(index) => Step::Index(*index),
    };
    steps.iter().map(borrow).collect()
}

impl<'a> Conform<'a> {
    fn value(&mut self, tree: Tree, ty: TypeId, steps: &mut Steps<'a>) -> Result<Tree, DecodeError> {
        let schema = self.schema;
        match (&schema.get(ty).shape, tree) {
            (_, Tree::Null) => Ok(Tree::Null),
            (Shape::Any | Shape::Scalar(Scalar::FieldsV1), tree) => Ok(tree),
            (Shape::Scalar(scalar), tree) => leaf(*scalar, tree).map_err(|unfit| match unfit {
                Unfit::Mismatch(value) => mismatch(schema, &borrowed(steps), &value, &go_type(schema, ty)),
                Unfit::Other(message) => DecodeError::Type(message),
            }),
            (Shape::Struct(shape), Tree::Map(map)) => self.structure(map, shape, ty, steps),
            (Shape::Map { value, .. }, Tree::Map(map)) => self.map(map, *value, steps),
            (Shape::List(list), Tree::List(items)) => self.list(items, list.item, steps),
            (Shape::Either(either), tree @ Tree::Map(_)) => self.value(tree, either.object, steps),
            (Shape::Either(either), Tree::List(items)) if either.or == Or::List => {
                self.list(items, either.object, steps)
            }
            (Shape::Either(either), tree @ Tree::Bool(_)) if either.or == Or::Bool => Ok(tree),
            (Shape::Either(either), tree @ Tree::List(_)) if either.or == Or::Strings => Ok(tree),
            (_, tree) if schema.is_lenient(ty) => Ok(tree),
            (_, tree) => Err(mismatch(schema, &borrowed(steps), json_type(&tree), &go_type(schema, ty))),
        }
    }

    fn structure(
        &mut self,
        map: Map,
        shape: &'a StructType,
        ty: TypeId,
        steps: &mut Steps<'a>,
    ) -> Result<Tree, DecodeError> {
        let mut out = Map::with_capacity(map.len());
        for (key, value) in map {
            match shape.field(key.as_str()) {
                Some(field) => {
                    steps.push(OwnedStep::Field(field.name.as_str(), ty));
                    let value = self.value(value, field.ty, steps)?;
                    steps.pop();
                    if keeps(field, &value) || (value.is_null() && self.schema.is_lenient(ty)) {
                        out.push_unchecked(field.name.clone(), value);
                    }
                }
                None if shape.preserve_unknown => out.push_unchecked(key, value),
                None => {
                    steps.push(OwnedStep::Key(key.as_str().into()));
                    self.issues.push(Issue::Unknown(path(&borrowed(steps))));
                    steps.pop();
                }
            }
        }
        Ok(Tree::Map(out))
    }

    fn map(&mut self, mut map: Map, ty: TypeId, steps: &mut Steps<'a>) -> Result<Tree, DecodeError> {
        for (key, value) in map.iter_mut() {
            steps.push(OwnedStep::Key(key.as_str().into()));
            *value = self.item(std::mem::take(value), ty, steps)?;
            steps.pop();
        }
        Ok(Tree::Map(map))
    }

    fn list(&mut self, mut items: Vec<Tree>, ty: TypeId, steps: &mut Steps<'a>) -> Result<Tree, DecodeError> {
        for (index, value) in items.iter_mut().enumerate() {
            steps.push(OwnedStep::Index(index));
            *value = self.item(std::mem::take(value), ty, steps)?;
            steps.pop();
        }
        Ok(Tree::List(items))
    }

    /// A value inside of a list or map, where null is the zero value.
    fn item(&mut self, tree: Tree, ty: TypeId, steps: &mut Steps<'a>) -> Result<Tree, DecodeError> {
        let value = self.value(tree, ty, steps)?;
        Ok(if value.is_null() && !self.schema.is_lenient(ty) { zero(self.schema, ty) } else { value })
    }
}

/// Puts in what Go writes for fields that were never set (`{}`, `""`, `0`, `null`), so that the
/// tree has the shape of its JSON. Server-side apply compares objects in that shape.
pub fn fill(tree: &mut Tree, schema: &Schema, ty: TypeId) {
    use crate::schema::Absent;
    match (&schema.get(ty).shape, tree) {
        (Shape::Struct(shape), Tree::Map(map)) => {
            for field in &shape.fields {
                if !map.contains_key(field.name.as_str()) {
                    let value = match field.absent {
                        Absent::Omitted => continue,
                        Absent::EmptyStruct => Tree::map(),
                        Absent::Zero => zero(schema, field.ty),
                        Absent::Null => Tree::Null,
                    };
                    map.push_unchecked(field.name.clone(), value);
                }
                if let Some(value) = map.get_mut(field.name.as_str()) {
                    fill(value, schema, field.ty);
                }
            }
        }
        (Shape::Map { value: ty, .. }, Tree::Map(map)) => {
            map.iter_mut().for_each(|(_, value)| fill(value, schema, *ty));
        }
        (Shape::List(list), Tree::List(items)) => items.iter_mut().for_each(|item| fill(item, schema, list.item)),
        (Shape::Either(either), Tree::List(items)) => {
            items.iter_mut().for_each(|item| fill(item, schema, either.object));
        }
        (Shape::Either(either), tree @ Tree::Map(_)) => fill(tree, schema, either.object),
        _ => {}
    }
}
