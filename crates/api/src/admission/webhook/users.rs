//! Who the server is to its webhooks: the users of a kubeconfig, named by the hosts they are for.

use std::collections::BTreeMap;
use std::path::Path;

use skiff_object::yaml;

use crate::kubeconfig;
use crate::outbound::{Address, Credentials, Target};

/// Credentials by host: `name.namespace.svc`, `host:port`, `*.example.com`, `*`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Users(BTreeMap<String, Credentials>);

impl Users {
    /// Reads the users of a kubeconfig.
    ///
    /// # Errors
    /// When it cannot be read, or a user in it.
    pub fn read(path: &Path) -> Result<Self, String> {
        let wrong = |why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
        let text = std::fs::read(path).map_err(|error| wrong(&error))?;
        let config = yaml::decode_untyped(&text).map_err(|error| wrong(&error))?;
        let folder = path.parent().unwrap_or(Path::new("/"));
        let mut users = BTreeMap::new();
        for user in config.list_at(&["users"]) {
            let name = user.str_at(&["name"]);
            let Some(user) = user.get("user") else { continue };
            let credentials =
                kubeconfig::credentials(user, folder).map_err(|why| wrong(&format!("user {name:?}: {why}")))?;
            users.insert(name.to_owned(), credentials);
        }
        Ok(Self(users))
    }

    /// Adds those of another file.
    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Whether nobody is named.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The credentials for a webhook, the most exact name first.
    pub fn of(&self, target: &Target) -> Credentials {
        let (host, port) = match &target.address {
            Address::Service { namespace, name, port, .. } => (format!("{name}.{namespace}.svc"), *port),
            Address::Url(url) => match url.parse::<http::Uri>() {
                Ok(uri) => (uri.host().unwrap_or_default().to_owned(), uri.port_u16().unwrap_or(443)),
                Err(_) => return Credentials::default(),
            },
        };
        let mut names = vec![format!("{host}:{port}")];
        if port == 443 {
            names.push(host.clone());
        }
        let mut rest = host.as_str();
        while let Some((_, shorter)) = rest.split_once('.') {
            names.push(format!("*.{shorter}"));
            rest = shorter;
        }
        names.push("*".to_owned());
        names.iter().find_map(|name| self.0.get(name)).cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_exact_name_counts() {
        let token = |text: &str| Credentials { token: Some(text.into()), ..Credentials::default() };
        let names = ["hook.sea.svc", "other.sea.svc:8443", "*.example.com", "*"];
        let users = Users(names.iter().map(|name| ((*name).to_owned(), token(name))).collect());
        let service = |name: &str, port| Address::Service {
            namespace: "sea".into(),
            name: name.into(),
            port,
            path: String::new(),
        };
        for (address, expected) in [
            (service("hook", 443), "hook.sea.svc"),
            (service("hook", 8443), "*"),
            (service("other", 8443), "other.sea.svc:8443"),
            (Address::Url("https://a.b.example.com/x".into()), "*.example.com"),
            (Address::Url("https://localhost:9/x".into()), "*"),
        ] {
            assert_eq!(users.of(&Target::new(address)).token.as_deref(), Some(expected));
        }
    }
}
