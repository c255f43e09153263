//! Adoption and release: which objects a controller takes over or lets go.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, OwnerReference};
use serde_json::json;
use skiff_client::{Client, Patch, Result, View};

use super::{Meta, controller_reference, selector};

/// Who claims.
pub(crate) struct Claimant<'a, K> {
    pub(crate) owner: &'a K,
    pub(crate) selector: &'a LabelSelector,
}

/// What becomes of the candidates.
pub(crate) struct Claim<T> {
    pub(crate) owned: Vec<Arc<T>>,
    pub(crate) adopt: Vec<Arc<T>>,
    pub(crate) release: Vec<Arc<T>>,
}

impl<K: View> Claimant<'_, K> {
    /// Sorts `candidates`: controlled and selected ones are owned, orphans that are selected are
    /// adopted, controlled ones that are no longer selected are released.
    pub(crate) fn plan<T: View>(&self, candidates: impl Iterator<Item = Arc<T>>) -> Claim<T> {
        let mut claim = Claim { owned: Vec::new(), adopt: Vec::new(), release: Vec::new() };
        let owner = self.owner.meta();
        for candidate in candidates {
            let meta = candidate.meta();
            let selected = selector::matches(self.selector, meta.labels.as_ref());
            match meta.controller() {
                Some(controller) if controller.uid != owner.uid() => {}
                Some(_) if selected => claim.owned.push(candidate),
                Some(_) if owner.is_deleting() => {}
                Some(_) => claim.release.push(candidate),
                None if selected && !owner.is_deleting() && !meta.is_deleting() => claim.adopt.push(candidate),
                None => {}
            }
        }
        claim
    }

    /// Performs a claim and gives what is owned afterwards.
    ///
    /// # Errors
    /// The request that failed.
    pub(crate) async fn perform<T: View>(&self, client: &Client, claim: Claim<T>) -> Result<Vec<Arc<T>>> {
        let mut owned = claim.owned;
        for object in claim.release {
            ignore_gone(release(client, &*object, self.owner.meta().uid()).await)?;
        }
        if !claim.adopt.is_empty() && self.may_adopt(client).await? {
            let reference = controller_reference(self.owner);
            for object in claim.adopt {
                if let Some(object) = ignore_gone(adopt(client, &*object, &reference).await)? {
                    owned.push(Arc::new(object));
                }
            }
        }
        Ok(owned)
    }

    /// The cache may be behind: an owner that is already going away must adopt nothing more.
    async fn may_adopt(&self, client: &Client) -> Result<bool> {
        let meta = self.owner.meta();
        let live = client.find::<K>(meta.ns(), meta.id()).await?;
        Ok(live.is_some_and(|live| live.meta().uid() == meta.uid() && !live.meta().is_deleting()))
    }
}

async fn adopt<T: View>(client: &Client, object: &T, owner: &OwnerReference) -> Result<T> {
    let meta = object.meta();
    let patch = json!({"metadata": {"uid": meta.uid(), "ownerReferences": [owner]}});
    client.patch(meta.ns(), meta.id(), &Patch::Strategic(patch)).await
}

async fn release<T: View>(client: &Client, object: &T, owner_uid: &str) -> Result<T> {
    let meta = object.meta();
    let patch = json!({"metadata": {"uid": meta.uid(), "ownerReferences": [{"$patch": "delete", "uid": owner_uid}]}});
    client.patch(meta.ns(), meta.id(), &Patch::Strategic(patch)).await
}

/// An object that vanished or was remade meanwhile needs neither adoption nor release.
fn ignore_gone<T>(outcome: Result<T>) -> Result<Option<T>> {
    match outcome {
        Ok(object) => Ok(Some(object)),
        Err(error) if error.is_not_found() || error.is_invalid() => Ok(None),
        Err(error) => Err(error),
    }
}
