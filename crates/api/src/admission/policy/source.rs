//! Policies and bindings as of now.

use std::sync::Arc;

use arc_swap::ArcSwap;
use skiff_object::{Tree, json};

use super::compiled::{Binding, Policy};
use crate::admission::webhook::configuration::GROUP;
use crate::errors::{ApiError, ApiResult};
use crate::server::ApiServer;
use crate::storage::Item;

/// A policy with its bindings. One without is not asked.
#[derive(Debug)]
pub struct Hook {
    /// The policy.
    pub policy: Arc<Policy>,
    /// Its bindings, by name.
    pub bindings: Vec<Arc<Binding>>,
}

/// Objects with what was made of them, in the order of their names.
type Made<T> = Vec<(Arc<Item>, Arc<T>)>;

#[derive(Default)]
struct Ready {
    policies: Made<Policy>,
    bindings: Made<Binding>,
    hooks: Arc<Vec<Hook>>,
}

/// The hooks of one kind of policy.
pub struct Source {
    policies: &'static str,
    bindings: &'static str,
    ready: ArcSwap<Ready>,
}

impl Source {
    pub(super) fn new(policies: &'static str, bindings: &'static str) -> Self {
        Self { policies, bindings, ready: ArcSwap::default() }
    }

    /// The hooks as of now, by the policies' names: every policy and binding whose write has been answered is in them.
    /// What has not changed is not compiled again.
    pub(super) async fn hooks(&self, server: &ApiServer) -> ApiResult<Arc<Vec<Hook>>> {
        let ready = self.ready.load_full();
        let bindings = items(server, self.bindings).await?;
        // Without bindings no policy counts, and most clusters have none.
        if bindings.is_empty() && ready.bindings.is_empty() {
            return Ok(Arc::clone(&ready.hooks));
        }
        let policies = items(server, self.policies).await?;
        if is_same(&policies, &ready.policies) && is_same(&bindings, &ready.bindings) {
            return Ok(Arc::clone(&ready.hooks));
        }
        let policies = make(policies, &ready.policies, Policy::read)?;
        let bindings = make(bindings, &ready.bindings, Binding::read)?;
        let hooks = policies.iter().filter_map(|(_, policy)| {
            let own = bindings.iter().filter(|(_, binding)| binding.policy == policy.name);
            let bindings: Vec<_> = own.map(|(_, binding)| Arc::clone(binding)).collect();
            (!bindings.is_empty()).then(|| Hook { policy: Arc::clone(policy), bindings })
        });
        let hooks = Arc::new(hooks.collect());
        self.ready.store(Arc::new(Ready { hooks: Arc::clone(&hooks), policies, bindings }));
        Ok(hooks)
    }
}

async fn items(server: &ApiServer, plural: &str) -> ApiResult<Vec<Arc<Item>>> {
    server.collection(GROUP, plural).known_list("").await
}

fn is_same<T>(items: &[Arc<Item>], made: &Made<T>) -> bool {
    items.len() == made.len() && items.iter().zip(made).all(|(item, (from, _))| Arc::ptr_eq(item, from))
}

fn make<T>(items: Vec<Arc<Item>>, before: &Made<T>, read: fn(&Tree) -> T) -> ApiResult<Made<T>> {
    let mut before = before.iter().peekable();
    let mut made = Vec::with_capacity(items.len());
    for item in items {
        // Both are in the order of keys, so what is kept is found in one pass.
        while before.next_if(|(from, _)| from.stored.key < item.stored.key).is_some() {}
        let value = match before.next_if(|(from, _)| Arc::ptr_eq(from, &item)) {
            Some((_, value)) => Arc::clone(value),
            None => Arc::new(read(&json::decode_untyped(&item.stored.value).map_err(ApiError::internal)?)),
        };
        made.push((item, value));
    }
    Ok(made)
}
