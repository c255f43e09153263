//! Kubeconfig files as the server's own flags take them: one server to call and who we are to it.

use std::fmt::Display;

use base64::Engine;
use skiff_object::{Tree, yaml};

use crate::outbound::{Address, Credentials, Target, Trust};

/// Reads the target of a kubeconfig's current context. Relative files are looked for in `folder`.
///
/// # Errors
/// A sentence that says what is missing, unreadable or not supported.
pub fn target(text: &[u8], folder: &std::path::Path) -> Result<Target, String> {
    let config = yaml::decode_untyped(text).map_err(|error| format!("not a kubeconfig: {error}"))?;
    let context = match config.str_at(&["current-context"]) {
        "" => match config.list_at(&["contexts"]) {
            [only] => only,
            _ => return Err("no current-context".into()),
        },
        name => named(&config, "contexts", name)?,
    };
    let cluster = named(&config, "clusters", context.str_at(&["context", "cluster"]))?;
    let cluster = cluster.get("cluster").ok_or("the cluster is empty")?;
    let server = cluster.str_at(&["server"]);
    if server.is_empty() {
        return Err("the cluster has no server".into());
    }
    let mut target = Target::new(Address::Url(server.to_owned()));
    if cluster.bool_at(&["insecure-skip-tls-verify"]) == Some(true) {
        target.trust = Trust::Anybody;
    } else if let Some(authority) = material(cluster, "certificate-authority", folder)? {
        target.trust = Trust::Authorities(authority);
    }
    let name = cluster.str_at(&["tls-server-name"]);
    target.server_name = (!name.is_empty()).then(|| name.to_owned());
    let user = context.str_at(&["context", "user"]);
    if !user.is_empty() {
        let user = named(&config, "users", user)?.get("user").ok_or("the user is empty")?;
        target.credentials = credentials(user, folder)?;
    }
    Ok(target)
}

/// The credentials of one user.
///
/// # Errors
/// What is unreadable or not supported.
pub(crate) fn credentials(user: &Tree, folder: &std::path::Path) -> Result<Credentials, String> {
    for unsupported in ["exec", "auth-provider"] {
        if user.get(unsupported).is_some() {
            return Err(format!("users with {unsupported} are not supported here"));
        }
    }
    let text = |field: &str| user.str_at(&[field]).to_owned();
    let token = match (text("token"), text("tokenFile")) {
        (token, _) if !token.is_empty() => Some(token),
        (_, file) if !file.is_empty() => Some(String::from_utf8_lossy(&read(folder, &file)?).trim().to_owned()),
        _ => None,
    };
    let certificate = match (material(user, "client-certificate", folder)?, material(user, "client-key", folder)?) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        _ => return Err("client-certificate and client-key belong together".into()),
    };
    let basic = (!text("username").is_empty()).then(|| (text("username"), text("password")));
    Ok(Credentials { certificate, token, basic })
}

fn named<'a>(config: &'a Tree, list: &str, name: &str) -> Result<&'a Tree, String> {
    let found = config.list_at(&[list]).iter().find(|one| one.str_at(&["name"]) == name);
    found.ok_or_else(|| format!("{list} holds no {name:?}"))
}

/// The bytes of `<field>-data`, or those of the file that `<field>` names.
fn material(tree: &Tree, field: &str, folder: &std::path::Path) -> Result<Option<Vec<u8>>, String> {
    let data = tree.str_at(&[&format!("{field}-data")]);
    if !data.is_empty() {
        let bytes = base64::engine::general_purpose::STANDARD.decode(data);
        return bytes.map(Some).map_err(|error: base64::DecodeError| wrong(field, &error));
    }
    match tree.str_at(&[field]) {
        "" => Ok(None),
        file => read(folder, file).map(Some),
    }
}

fn read(folder: &std::path::Path, file: &str) -> Result<Vec<u8>, String> {
    let path = folder.join(file);
    std::fs::read(&path).map_err(|error| wrong(&path.display().to_string(), &error))
}

fn wrong(what: &str, why: &dyn Display) -> String {
    format!("{what}: {why}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_current_context_gives_server_trust_and_credentials() {
        let text = "apiVersion: v1\nkind: Config\ncurrent-context: b\ncontexts:\n- {name: a, context: {cluster: x}}\n\
            - {name: b, context: {cluster: y, user: u}}\nclusters:\n- {name: x, cluster: {server: 'https://x'}}\n\
            - {name: y, cluster: {server: 'https://y/z', certificate-authority-data: Y2E=, tls-server-name: other}}\n\
            users:\n- {name: u, user: {token: t}}\n";
        let target = target(text.as_bytes(), std::path::Path::new("/")).unwrap();
        assert_eq!(target.address, Address::Url("https://y/z".into()));
        assert_eq!(target.trust, Trust::Authorities(b"ca".to_vec()));
        assert_eq!(target.server_name.as_deref(), Some("other"));
        assert_eq!(target.credentials.token.as_deref(), Some("t"));
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = |text: &str| target(text.as_bytes(), std::path::Path::new("/nowhere")).unwrap_err();
        assert_eq!(error("current-context: a"), "contexts holds no \"a\"");
        assert_eq!(
            error("contexts: [{name: a, context: {cluster: x}}]\nclusters: [{name: x, cluster: {}}]"),
            "the cluster has no server"
        );
    }
}
