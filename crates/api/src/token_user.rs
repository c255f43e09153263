//! A service account token as a user: what it is bound to must still be there.

use skiff_object::{Tree, json};

use crate::authn::UserInfo;
use crate::authn::service_account::{ObjectRef, TokenError};
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
        self.still_there("serviceaccounts", &bound.namespace, &bound.serviceaccount).await?;
        for (plural, reference) in [("pods", &bound.pod), ("secrets", &bound.secret)] {
            if let Some(reference) = reference {
                self.still_there(plural, &bound.namespace, reference).await?;
            }
        }
        // A pod's token dies with the pod; the node in it only says where that was.
        if let Some(node) = bound.node.as_ref().filter(|_| bound.pod.is_none()) {
            self.still_there("nodes", "", node).await?;
        }
        Ok((claims.user(), taken))
    }

    async fn still_there(&self, plural: &str, namespace: &str, reference: &ObjectRef) -> Result<(), TokenError> {
        let gone = |why: &str| TokenError::Claims(format!("{plural} {namespace}/{}: {why}", reference.name));
        let found = self.collection("", plural).get(namespace, &reference.name).await;
        let stored = found.map_err(|error| gone(&error.message))?.ok_or_else(|| gone("not found"))?;
        let object: Tree = json::decode_untyped(&stored.value).map_err(|error| gone(&error.to_string()))?;
        if !reference.uid.is_empty() && meta::uid(&object) != reference.uid {
            return Err(gone("the token was bound to one with another uid"));
        }
        Ok(())
    }
}
