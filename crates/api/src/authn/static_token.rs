//! Bearer tokens known from the configuration (`--token-auth-file`).

use async_trait::async_trait;

use super::chain::{Identified, Refusal, TokenAuthenticator, api_audiences};
use super::{UserInfo, same_secret};
use crate::server::ApiServer;

/// A token and who shows it.
#[derive(Clone, Debug)]
pub struct StaticToken {
    /// The token.
    pub token: String,
    /// Who shows it.
    pub user: UserInfo,
}

/// Why a token file is not taken.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("token file, line {line}: {why}")]
pub struct TokenFileError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub why: &'static str,
}

/// Reads the lines `token,user,uid,"group1,group2"` of a token file; upstream's CSV.
///
/// # Errors
/// For lines with fewer than three columns, without a token or with a quote that does not end.
pub fn read_file(text: &str) -> Result<Vec<StaticToken>, TokenFileError> {
    let mut tokens = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let error = |why| TokenFileError { line: at + 1, why };
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let columns = columns(line).ok_or_else(|| error("a quote that does not end"))?;
        let [token, name, uid, rest @ ..] = columns.as_slice() else {
            return Err(error("expected at least 3 columns"));
        };
        if token.is_empty() {
            return Err(error("empty token"));
        }
        let groups = rest.first().map(String::as_str).unwrap_or_default();
        let groups = groups.split(',').map(str::trim).filter(|group| !group.is_empty()).map(str::to_owned).collect();
        let user = UserInfo { name: name.clone(), uid: uid.clone(), groups, ..UserInfo::default() };
        tokens.push(StaticToken { token: token.clone(), user: user.authenticated() });
    }
    Ok(tokens)
}

/// The columns of a line; `None` when a quote does not end.
fn columns(line: &str) -> Option<Vec<String>> {
    let mut columns = vec![String::new()];
    let mut quoted = false;
    let mut chars = line.trim_end_matches('\r').chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                columns.last_mut()?.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => columns.push(String::new()),
            c => columns.last_mut()?.push(c),
        }
    }
    (!quoted).then(|| columns.iter().map(|column| column.trim().to_owned()).collect())
}

/// See the [module](self).
pub(super) struct StaticTokens;

#[async_trait]
impl TokenAuthenticator for StaticTokens {
    fn name(&self) -> &'static str {
        "static"
    }

    async fn identify(
        &self,
        server: &ApiServer,
        token: &str,
        audiences: &[String],
    ) -> Result<Option<Identified>, Refusal> {
        // Such a token is for the API server and nobody else.
        let audiences = api_audiences(server, audiences);
        if audiences.is_empty() {
            return Ok(None);
        }
        let known = &server.config.static_tokens;
        let found = known.iter().find(|one| same_secret(one.token.as_bytes(), token.as_bytes()));
        Ok(found.map(|found| Identified { user: found.user.clone(), audiences }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_one_quoted_column() {
        let tokens = read_file("t1,jane,7,\"devs,ops\"\n\nt2,bob,8\n").unwrap();
        assert_eq!(tokens[0].user.groups, ["devs", "ops", "system:authenticated"]);
        assert_eq!((tokens[1].token.as_str(), tokens[1].user.uid.as_str()), ("t2", "8"));
        assert_eq!(read_file("a,b").unwrap_err().why, "expected at least 3 columns");
        assert!(read_file("a,b,c,\"d").is_err());
    }
}
