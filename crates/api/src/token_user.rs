//! A service account token as a user: what it is bound to must still be there.

use skiff_object::{Tree, json};

use crate::authn::UserInfo;
use crate::authn::service_account::{LEEWAY_SECONDS, ObjectRef, TokenError};
use crate::meta;
use crate::server::ApiServer;

impl ApiServer {
    /// Checks a service account token; gives its user and the audiences that both sides name.
    ///
    /// # Errors
    /// [`TokenError`] says why it is not taken.
    pub async fn token_user(&self, token: &str, audiences: &[String]) -> Result<(UserInfo, Vec<String>), TokenError> {
        let (claims, taken) = self.tokens.read(token, audiences)?;
        let bound = &claims.kubernetes;
        let (namespace, account) = (&bound.namespace, &bound.serviceaccount);
        let found = self.find("serviceaccounts", namespace, account).await?;
        let why = match found {
            None => format!("serviceaccounts {:?} not found", account.name),
            Some(object) if self.is_gone(&object) => {
                format!("service account {namespace}/{} has been deleted", account.name)
            }
            Some(object) if meta::uid(&object) != account.uid => {
                format!("service account UID ({}) does not match claim ({})", meta::uid(&object), account.uid)
            }
            Some(_) => String::new(),
        };
        if !why.is_empty() {
            return Err(TokenError::Claims(why));
        }
        if let Some(secret) = &bound.secret {
            let object = self.bound("secrets", namespace, secret, "secret").await?;
            crate::authn::legacy::check(self, &object, token).await?;
        }
        if let Some(pod) = &bound.pod {
            self.bound("pods", namespace, pod, "pod").await?;
        }
        // A pod's token dies with the pod; the node in it only says where that was.
        if let Some(node) = bound.node.as_ref().filter(|_| bound.pod.is_none()) {
            self.bound("nodes", "", node, "node").await?;
        }
        Ok((claims.user(), taken))
    }

    /// The object that a token is bound to, if the token still holds.
    async fn bound(&self, plural: &str, namespace: &str, to: &ObjectRef, word: &str) -> Result<Tree, TokenError> {
        let invalidated = || TokenError::Claims("service account token has been invalidated".into());
        let object = self.find(plural, namespace, to).await?.filter(|object| !self.is_gone(object));
        let object = object.ok_or_else(invalidated)?;
        if meta::uid(&object) == to.uid {
            return Ok(object);
        }
        Err(TokenError::Claims(format!(
            "{word} UID ({}) does not match service account {word} ref claim ({})",
            meta::uid(&object),
            to.uid
        )))
    }

    async fn find(&self, plural: &str, namespace: &str, reference: &ObjectRef) -> Result<Option<Tree>, TokenError> {
        let unreadable = |why: String| TokenError::Claims(format!("read {plural} {}: {why}", reference.name));
        let found = self.collection("", plural).get(namespace, &reference.name).await;
        let Some(stored) = found.map_err(|error| unreadable(error.message))? else { return Ok(None) };
        json::decode_untyped(&stored.value).map(Some).map_err(|error| unreadable(error.to_string()))
    }

    /// Whether an object was to be gone longer ago than clocks differ.
    fn is_gone(&self, object: &Tree) -> bool {
        let deleted = meta::parse_time(object.str_at(&["metadata", "deletionTimestamp"]));
        deleted.is_some_and(|at| at.as_secs() < self.clock().now().as_secs() - LEEWAY_SECONDS)
    }
}
