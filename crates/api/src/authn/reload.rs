//! The file of the structured authentication configuration is read again when it changes.

use std::sync::Arc;
use std::time::Duration;

use crate::server::ApiServer;

/// Between two looks at the file; upstream's.
const EVERY: Duration = Duration::from_secs(60);

/// Follows the file for as long as the server runs. One that is no good leaves what was before.
pub(crate) fn follow(server: &Arc<ApiServer>) {
    let Some(file) = &server.config.authn.configuration else { return };
    let Some(path) = file.path.clone() else { return };
    let mut taken = file.text.clone();
    let (clock, weak) = (server.config.clock.clone(), Arc::downgrade(server));
    server.config.tasks.spawn("authentication-config", async move {
        loop {
            clock.sleep(EVERY).await;
            let Some(server) = weak.upgrade() else { return };
            let text = match tokio::fs::read_to_string(&path).await {
                Ok(text) if text == taken => continue,
                Ok(text) => text,
                Err(error) => {
                    tracing::error!(path = %path.display(), %error, "read the authentication configuration");
                    continue;
                }
            };
            match server.authn.reconfigure(&text, &clock) {
                Ok(()) => tracing::info!(path = %path.display(), "authentication configuration taken over"),
                Err(error) => {
                    tracing::error!(path = %path.display(), %error, "authentication configuration not taken over");
                }
            }
            taken = text;
        }
    });
}
