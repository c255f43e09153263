//! The authorizers of a configuration file, which is read again when it changes.
//!
//! Roles and what nodes may see are followed once, whichever configuration speaks of them; webhooks
//! are made anew, and with them what they have answered is forgotten.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::FutureExt;
use futures::future::BoxFuture;
use skiff_base::metrics::Metric;

use super::config::{Building, ConfigurationError, Mode, read};
use super::node::NodeAuthorizer;
use super::rbac::Rbac;
use super::union::Union;
use super::webhook::WebhookAuthorizer;
use super::{AllowAll, Attributes, Authorizer, Decision, DenyAll, Rules};
use crate::authn::UserInfo;
use crate::outbound::Target;

/// Between two looks at the file; upstream's.
const EVERY: Duration = Duration::from_secs(60);

static RELOADS: Metric = Metric::counter(
    "apiserver_authorization_config_controller_automatic_reloads_total",
    "Times that a changed authorization configuration was to be taken over, by what became of it.",
);
static RELOADED: Metric = Metric::gauge(
    "apiserver_authorization_config_controller_automatic_reload_last_timestamp_seconds",
    "When a changed authorization configuration was last to be taken over, in seconds since 1970.",
);

/// Reads a kubeconfig file into where a webhook is.
pub type Kubeconfig = fn(&str) -> Result<Target, String>;

/// See the [module](self).
pub struct Changing {
    current: ArcSwap<Current>,
    followers: Followers,
    with: Building,
    path: PathBuf,
    kubeconfig: Kubeconfig,
}

struct Current {
    text: String,
    union: Union,
    has_roles: bool,
}

/// What follows the store, made when a configuration first speaks of it.
#[derive(Default)]
pub(super) struct Followers {
    rbac: OnceLock<Arc<Rbac>>,
    node: OnceLock<Arc<NodeAuthorizer>>,
}

impl Followers {
    /// The authorizers of `modes`, in their order.
    pub(super) async fn union(&self, modes: Vec<Mode>, with: &Building) -> Result<Union, skiff_store::Error> {
        let mut authorizers: Vec<Arc<dyn Authorizer>> = Vec::new();
        for mode in modes {
            let (store, clock) = (Arc::clone(&with.store), with.clock.clone());
            authorizers.push(match mode {
                Mode::Node => match self.node.get() {
                    Some(node) => Arc::clone(node) as _,
                    None => {
                        let node = NodeAuthorizer::start(store, &with.cluster, clock, &with.tasks).await?;
                        Arc::clone(self.node.get_or_init(|| node)) as _
                    }
                },
                Mode::Rbac => match self.rbac.get() {
                    Some(rbac) => Arc::clone(rbac) as _,
                    None => {
                        let rbac = Rbac::start(store, &with.cluster, clock, &with.tasks).await?;
                        Arc::clone(self.rbac.get_or_init(|| rbac)) as _
                    }
                },
                Mode::Abac(abac) => Arc::new(abac),
                Mode::AlwaysAllow => Arc::new(AllowAll),
                Mode::AlwaysDeny => Arc::new(DenyAll),
                Mode::Webhook(webhook) => {
                    let super::config::Webhook { settings, conditions } = *webhook;
                    let outbound = Arc::clone(&with.outbound);
                    Arc::new(WebhookAuthorizer::new(settings, outbound, clock).only_for(conditions))
                }
            });
        }
        Ok(Union::new(authorizers))
    }
}

impl Changing {
    /// Reads the file and follows it for as long as the tasks of `with` live.
    ///
    /// # Errors
    /// When the file cannot be read or is no good, or the store cannot be read.
    pub async fn start(path: PathBuf, kubeconfig: Kubeconfig, with: Building) -> Result<Arc<Self>, ConfigurationError> {
        let text = text_of(&path).await?;
        let followers = Followers::default();
        let current = made(&followers, text, kubeconfig, &with).await?;
        let this = Arc::new(Self { current: ArcSwap::from_pointee(current), followers, with, path, kubeconfig });
        let (weak, clock) = (Arc::downgrade(&this), this.with.clock.clone());
        this.with.tasks.spawn("authorization-config", async move {
            loop {
                clock.sleep(EVERY).await;
                let Some(this) = weak.upgrade() else { return };
                if let Err(error) = this.reload().await {
                    tracing::error!(path = %this.path.display(), %error, "authorization configuration not taken over");
                }
            }
        });
        Ok(this)
    }

    /// Looks at the file now, and takes over what it says when that is something else.
    ///
    /// # Errors
    /// Why what was before stays.
    pub async fn reload(&self) -> Result<(), ConfigurationError> {
        let outcome = match text_of(&self.path).await {
            Ok(text) if text == self.current.load().text => return Ok(()),
            Ok(text) => made(&self.followers, text, self.kubeconfig, &self.with).await,
            Err(error) => Err(error),
        };
        let status = [("status", if outcome.is_ok() { "success" } else { "failure" })];
        let metrics = self.with.tasks.metrics();
        metrics.counter(&RELOADS, &status).increment();
        metrics.gauge(&RELOADED, &status).set(self.with.clock.now().as_nanos() as f64 / 1e9);
        self.current.store(Arc::new(outcome?));
        tracing::info!(path = %self.path.display(), "authorization configuration taken over");
        Ok(())
    }
}

async fn text_of(path: &std::path::Path) -> Result<String, ConfigurationError> {
    let text = tokio::fs::read_to_string(path).await;
    text.map_err(|error| ConfigurationError(format!("{}: {error}", path.display())))
}

async fn made(
    followers: &Followers,
    text: String,
    kubeconfig: Kubeconfig,
    with: &Building,
) -> Result<Current, ConfigurationError> {
    let modes = read(&text, &kubeconfig)?;
    let has_roles = modes.iter().any(|mode| matches!(mode, Mode::Rbac));
    let union = followers.union(modes, with).await.map_err(|error| ConfigurationError(error.to_string()))?;
    Ok(Current { text, union, has_roles })
}

impl Authorizer for Changing {
    fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        self.current.load().union.authorize(attributes)
    }

    fn asks(&self, user: &UserInfo) -> bool {
        self.current.load().union.asks(user)
    }

    fn ask<'a>(&'a self, attributes: Attributes<'a>) -> Option<BoxFuture<'a, Decision>> {
        let current = self.current.load_full();
        current.union.asks(attributes.user).then(|| {
            async move {
                match current.union.ask(attributes) {
                    Some(answer) => answer.await,
                    None => current.union.authorize(&attributes),
                }
            }
            .boxed()
        })
    }

    fn rules(&self, user: &UserInfo, namespace: &str) -> Rules {
        self.current.load().union.rules(user, namespace)
    }

    fn roles(&self) -> Option<&Rbac> {
        let rbac = self.followers.rbac.get().map(Arc::as_ref);
        rbac.filter(|_| self.current.load().has_roles)
    }
}
