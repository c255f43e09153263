//! Names of images, as Docker and containerd understand them.

use std::fmt;

/// A full reference: registry, repository, and a tag, a digest, or both.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    /// `docker.io`, `localhost:5000`…
    pub registry: String,
    /// `library/nginx`…
    pub repository: String,
    /// `latest` when neither tag nor digest was given.
    pub tag: Option<String>,
    /// `sha256:…`
    pub digest: Option<String>,
}

/// The registry of names without one.
const DEFAULT_REGISTRY: &str = "docker.io";
/// The longest name (distribution's `RepositoryNameTotalLengthMax`).
const NAME_BYTES_MAX: usize = 255;

impl Reference {
    /// Reads a name as a user writes it: `nginx`, `k8s.gcr.io/pause:3.9`, `a/b@sha256:…`.
    ///
    /// # Errors
    /// Why it is no reference.
    pub fn parse(text: &str) -> Result<Self, String> {
        let invalid = |why: &str| Err(format!("invalid reference {text:?}: {why}"));
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) if is_digest(digest) => (rest, Some(digest.to_owned())),
            Some(_) => return invalid("the digest is not sha256 and 64 hexadecimal digits"),
            None => (text, None),
        };
        let after_slash = rest.rfind('/').map_or(0, |at| at + 1);
        let (name, tag) = match rest[after_slash..].rfind(':') {
            Some(colon) => (&rest[..after_slash + colon], Some(&rest[after_slash + colon + 1..])),
            None => (rest, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return invalid("the tag has characters beside A-Z a-z 0-9 _ . -");
        }
        let (registry, repository) = match name.split_once('/') {
            Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (first, rest.to_owned()),
            Some(_) => (DEFAULT_REGISTRY, name.to_owned()),
            None => (DEFAULT_REGISTRY, format!("library/{name}")),
        };
        let registry = if registry == "index.docker.io" { DEFAULT_REGISTRY } else { registry };
        if !is_registry(registry) {
            return invalid("the registry is no host name");
        }
        if !repository.split('/').all(is_component) {
            return invalid("repository name must be lowercase letters and digits, separated by . _ - or /");
        }
        if registry.len() + repository.len() > NAME_BYTES_MAX {
            return invalid("the name is longer than 255 characters");
        }
        let tag = tag.map(str::to_owned).or_else(|| digest.is_none().then(|| "latest".to_owned()));
        Ok(Self { registry: registry.to_owned(), repository, tag, digest })
    }

    /// Registry and repository.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(formatter, ":{tag}")?;
        }
        self.digest.iter().try_for_each(|digest| write!(formatter, "@{digest}"))
    }
}

/// Whether the text is `sha256:` and 64 lower-case hexadecimal digits.
pub(crate) fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|hex| {
        hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    })
}

fn is_tag(tag: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let mut bytes = tag.bytes();
    bytes.next().is_some_and(word) && tag.len() <= 128 && bytes.all(|byte| word(byte) || matches!(byte, b'.' | b'-'))
}

fn is_registry(registry: &str) -> bool {
    let (host, port) = match registry.rsplit_once(':') {
        Some((host, port)) if !registry.ends_with(']') => (host, Some(port)),
        _ => (registry, None),
    };
    let port_ok = port.is_none_or(|port| port.parse::<u16>().is_ok());
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host_ok = match bracketed {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            !host.is_empty()
                && host.split('.').all(|label| {
                    !label.is_empty()
                        && !label.starts_with('-')
                        && !label.ends_with('-')
                        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
                })
        }
    };
    port_ok && host_ok
}

fn is_component(component: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = component.as_bytes();
    bytes.first().is_some_and(|byte| word(*byte))
        && bytes.last().is_some_and(|byte| word(*byte))
        && bytes.iter().all(|&byte| word(byte) || matches!(byte, b'.' | b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_become_full_ones() {
        let hex = "a".repeat(64);
        for (text, full) in [
            ("nginx", "docker.io/library/nginx:latest".to_owned()),
            ("a/b:1", "docker.io/a/b:1".to_owned()),
            ("skiff.local/demo", "skiff.local/demo:latest".to_owned()),
            ("localhost/x", "localhost/x:latest".to_owned()),
            ("localhost:5000/x/y:v1", "localhost:5000/x/y:v1".to_owned()),
            ("[::1]:5000/x", "[::1]:5000/x:latest".to_owned()),
            (&format!("q.io/x@sha256:{hex}"), format!("q.io/x@sha256:{hex}")),
            (&format!("q.io/x:1@sha256:{hex}"), format!("q.io/x:1@sha256:{hex}")),
        ] {
            assert_eq!(Reference::parse(text).unwrap().to_string(), full);
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in ["", "UPPER", "a//b", "a:", "a@sha256:1", "../x", "a/../b", "-x.io:1/a", "x.io:99999/a", "a:b c"] {
            assert!(Reference::parse(text).is_err(), "{text:?}");
        }
    }
}
