//! The cache of an informer: an ordered, immutable snapshot with indices.
//!
//! The body works on erased objects, so it is compiled once and not once per kind; the typed
//! [`Snapshot`] on top only downcasts.

use std::any::Any;
use std::marker::PhantomData;
use std::sync::Arc;

use imbl::OrdMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::{ObjectKey, View};

/// An object of some kind.
pub(crate) type Erased = Arc<dyn Any + Send + Sync>;

/// How objects of one kind are read from bytes and what their metadata is.
#[derive(Clone, Copy)]
pub(crate) struct Codec {
    pub(crate) decode: fn(&[u8]) -> Result<Erased, String>,
    pub(crate) meta: fn(&Erased) -> Option<&ObjectMeta>,
}

impl Codec {
    pub(crate) fn of<K: View>() -> Self {
        Self {
            decode: |bytes| {
                let mut object = K::decode(bytes)?;
                // Nobody who works from a cache writes ownership back, and it is up to half an object.
                object.meta_mut().managed_fields = None;
                Ok(Arc::new(object))
            },
            meta: |object| object.downcast_ref::<K>().map(View::meta),
        }
    }
}

/// The values under which an object is found in an index.
pub(crate) type IndexFn = Arc<dyn Fn(&Erased) -> Vec<String> + Send + Sync>;

#[derive(Clone, Default)]
pub(crate) struct Shelf {
    objects: OrdMap<ObjectKey, Erased>,
    indices: Vec<IndexShelf>,
}

#[derive(Clone)]
struct IndexShelf {
    name: &'static str,
    of: IndexFn,
    entries: OrdMap<String, OrdMap<ObjectKey, Erased>>,
}

impl IndexShelf {
    fn add(&mut self, key: &ObjectKey, object: &Erased) {
        for value in (self.of)(object) {
            self.entries.entry(value).or_default().insert(key.clone(), object.clone());
        }
    }

    fn remove(&mut self, key: &ObjectKey, object: &Erased) {
        for value in (self.of)(object) {
            let Some(group) = self.entries.get_mut(&value) else { continue };
            group.remove(key);
            if group.is_empty() {
                self.entries.remove(&value);
            }
        }
    }
}

impl Shelf {
    pub(crate) fn insert(&mut self, key: ObjectKey, object: Erased) -> Option<Erased> {
        let old = self.objects.insert(key.clone(), object.clone());
        for index in &mut self.indices {
            if let Some(old) = &old {
                index.remove(&key, old);
            }
            index.add(&key, &object);
        }
        old
    }

    pub(crate) fn remove(&mut self, key: &ObjectKey) -> Option<Erased> {
        let old = self.objects.remove(key)?;
        for index in &mut self.indices {
            index.remove(key, &old);
        }
        Some(old)
    }

    pub(crate) fn get(&self, key: &ObjectKey) -> Option<&Erased> {
        self.objects.get(key)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&ObjectKey, &Erased)> {
        self.objects.iter()
    }

    pub(crate) fn add_index(&mut self, name: &'static str, of: IndexFn) {
        if self.indices.iter().any(|index| index.name == name) {
            return;
        }
        let mut index = IndexShelf { name, of, entries: OrdMap::new() };
        for (key, object) in &self.objects {
            index.add(key, object);
        }
        self.indices.push(index);
    }

    fn namespace<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a Erased> {
        self.objects
            .range(ObjectKey::new(namespace, "")..)
            .take_while(move |(key, _)| key.namespace == namespace)
            .map(|(_, object)| object)
    }

    fn indexed(&self, name: &str, value: &str) -> Option<&OrdMap<ObjectKey, Erased>> {
        self.indices.iter().find(|index| index.name == name)?.entries.get(value)
    }
}

/// What an informer knew at one moment. Cheap to take and to keep.
pub struct Snapshot<K> {
    shelf: Shelf,
    kind: PhantomData<fn() -> K>,
}

impl<K> Clone for Snapshot<K> {
    fn clone(&self) -> Self {
        Self { shelf: self.shelf.clone(), kind: PhantomData }
    }
}

impl<K: View> Snapshot<K> {
    pub(crate) fn new(shelf: Shelf) -> Self {
        Self { shelf, kind: PhantomData }
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.shelf.objects.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.shelf.objects.is_empty()
    }

    /// The object `name` in `namespace` (empty for cluster scope).
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.find(&ObjectKey::new(namespace, name))
    }

    /// The object with this key.
    pub fn find(&self, key: &ObjectKey) -> Option<Arc<K>> {
        self.shelf.get(key).and_then(typed)
    }

    /// Every object, by namespace and name.
    pub fn iter(&self) -> impl Iterator<Item = Arc<K>> {
        self.shelf.objects.values().filter_map(typed)
    }

    /// The objects of one namespace, by name.
    pub fn namespace<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = Arc<K>> + 'a {
        self.shelf.namespace(namespace).filter_map(typed)
    }

    /// The objects that `index` files under `value`; none when there is no such index.
    pub fn indexed(&self, index: &str, value: &str) -> impl Iterator<Item = Arc<K>> {
        self.shelf.indexed(index, value).into_iter().flat_map(|group| group.values()).filter_map(typed)
    }
}

pub(crate) fn typed<K: View>(object: &Erased) -> Option<Arc<K>> {
    object.clone().downcast::<K>().ok()
}
