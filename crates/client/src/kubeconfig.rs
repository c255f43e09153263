//! The part of a kubeconfig that says where a server is and who we are.
//!
//! Not understood, and refused rather than ignored: credential plugins (`exec`,
//! `auth-provider`), user names with passwords, proxies and unverified servers.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use skiff_object::{Tree, yaml};

use crate::remote::{Credentials, Target};

/// Why a kubeconfig gives no target.
#[derive(Debug, thiserror::Error)]
#[error("kubeconfig {path}: {cause}")]
pub struct KubeconfigError {
    /// The file.
    pub path: String,
    /// What is wrong.
    pub cause: String,
}

/// Reads the target of `context` (the current one when `None`) from the file at `path`.
///
/// # Errors
/// When the file cannot be read, or what it asks for is missing or not supported.
pub fn load(path: &Path, context: Option<&str>) -> Result<Target, KubeconfigError> {
    let fail = |cause: String| KubeconfigError { path: path.display().to_string(), cause };
    let text = std::fs::read(path).map_err(|error| fail(error.to_string()))?;
    parse(&text, context, path.parent().unwrap_or(Path::new("."))).map_err(fail)
}

/// Reads the target of `context`; relative files are found in `folder`.
///
/// # Errors
/// What is missing or not supported.
pub fn parse(text: &[u8], context: Option<&str>, folder: &Path) -> Result<Target, String> {
    let config = yaml::decode_untyped(text).map_err(|error| error.to_string())?;
    let name = context.unwrap_or_else(|| config.str_at(&["current-context"]));
    let context = named(&config, "contexts", "context", name)?;
    let cluster = named(&config, "clusters", "cluster", context.str_at(&["cluster"]))?;
    let user = named(&config, "users", "user", context.str_at(&["user"]))?;
    for (section, fields) in
        [(cluster, &["insecure-skip-tls-verify", "proxy-url"][..]), (user, &["exec", "auth-provider", "username"])]
    {
        if let Some(field) = fields.iter().find(|field| section.get(field).is_some_and(is_given)) {
            return Err(format!("{field} is not supported"));
        }
    }
    Ok(Target {
        server: cluster.str_at(&["server"]).to_owned(),
        ca_pem: data(cluster, "certificate-authority", folder)?.unwrap_or_default(),
        server_name: Some(cluster.str_at(&["tls-server-name"]).to_owned()).filter(|name| !name.is_empty()),
        credentials: credentials(user, folder)?,
    })
}

fn is_given(value: &Tree) -> bool {
    !value.is_null() && *value != Tree::Bool(false)
}

fn named<'a>(config: &'a Tree, list: &str, field: &str, name: &str) -> Result<&'a Tree, String> {
    let entries = config.list_at(&[list]);
    let entry = entries.iter().find(|entry| entry.str_at(&["name"]) == name);
    entry.and_then(|entry| entry.get(field)).ok_or_else(|| format!("no {field} called {name:?}"))
}

fn credentials(user: &Tree, folder: &Path) -> Result<Credentials, String> {
    let token = user.str_at(&["token"]);
    if !token.is_empty() {
        return Ok(Credentials::Token(token.to_owned()));
    }
    let file = user.str_at(&["tokenFile"]);
    if !file.is_empty() {
        let token = read(file, folder)?;
        return Ok(Credentials::Token(String::from_utf8_lossy(&token).trim().to_owned()));
    }
    match (data(user, "client-certificate", folder)?, data(user, "client-key", folder)?) {
        (Some(chain_pem), Some(key_pem)) => Ok(Credentials::Certificate { chain_pem, key_pem }),
        (None, None) => Ok(Credentials::Anonymous),
        _ => Err("client-certificate and client-key belong together".into()),
    }
}

/// `<field>-data` in base64, or the file that `<field>` names.
fn data(section: &Tree, field: &str, folder: &Path) -> Result<Option<Vec<u8>>, String> {
    let inline = section.str_at(&[&format!("{field}-data")]);
    if !inline.is_empty() {
        let compact: String = inline.split_whitespace().collect();
        return STANDARD.decode(compact).map(Some).map_err(|error| format!("{field}-data: {error}"));
    }
    let file = section.str_at(&[field]);
    if file.is_empty() { Ok(None) } else { read(file, folder).map(Some) }
}

fn read(file: &str, folder: &Path) -> Result<Vec<u8>, String> {
    let path: PathBuf = folder.join(file);
    std::fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r#"
apiVersion: v1
kind: Config
current-context: one
contexts:
- {name: one, context: {cluster: c, user: u}}
- {name: two, context: {cluster: c, user: plugin}}
clusters:
- {name: c, cluster: {server: "https://127.0.0.1:6443", certificate-authority-data: Q0E=}}
users:
- {name: u, user: {token: secret}}
- {name: plugin, user: {exec: {command: aws}}}
"#;

    #[test]
    fn the_current_context_gives_server_and_credentials() {
        let target = parse(CONFIG.as_bytes(), None, Path::new("/")).unwrap();
        assert_eq!((target.server.as_str(), target.ca_pem.as_slice()), ("https://127.0.0.1:6443", &b"CA"[..]));
        assert!(matches!(target.credentials, Credentials::Token(token) if token == "secret"));
    }

    #[test]
    fn what_is_not_supported_is_refused() {
        let parse = |context| parse(CONFIG.as_bytes(), Some(context), Path::new("/")).map(drop);
        assert_eq!(parse("two"), Err("exec is not supported".into()));
        assert_eq!(parse("three"), Err("no context called \"three\"".into()));
    }
}
