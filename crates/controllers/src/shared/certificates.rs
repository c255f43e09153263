//! Certificate requests as they are read: what they ask for, and whether a built-in signer may
//! answer them. Words are upstream's.

use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;

/// Client certificates for users.
pub(crate) const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
/// Client certificates for kubelets.
pub(crate) const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
/// Serving certificates for kubelets.
pub(crate) const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";
/// Whatever was asked for before signers had names.
pub(crate) const LEGACY: &str = "kubernetes.io/legacy-unknown";

/// What a request asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) common_name: String,
    pub(crate) organizations: Vec<String>,
    pub(crate) dns_names: usize,
    pub(crate) emails: usize,
    pub(crate) addresses: usize,
    pub(crate) uris: usize,
}

/// Reads a PEM request.
///
/// # Errors
/// Why it is none.
pub(crate) fn read(pem: &[u8]) -> Result<Asked, String> {
    let block = x509_parser::pem::Pem::iter_from_buffer(pem).next().and_then(Result::ok);
    let block = block.filter(|block| block.label == "CERTIFICATE REQUEST");
    let block = block.ok_or("PEM block type must be CERTIFICATE REQUEST")?;
    let (_, request) = X509CertificationRequest::from_der(&block.contents).map_err(|error| error.to_string())?;
    let subject = &request.certification_request_info.subject;
    let mut asked = Asked {
        common_name: subject.iter_common_name().next().and_then(|name| name.as_str().ok()).unwrap_or("").to_owned(),
        organizations: subject.iter_organization().filter_map(|one| one.as_str().ok()).map(str::to_owned).collect(),
        ..Asked::default()
    };
    for extension in request.requested_extensions().into_iter().flatten() {
        let ParsedExtension::SubjectAlternativeName(names) = extension else { continue };
        for name in &names.general_names {
            match name {
                GeneralName::DNSName(_) => asked.dns_names += 1,
                GeneralName::RFC822Name(_) => asked.emails += 1,
                GeneralName::IPAddress(_) => asked.addresses += 1,
                GeneralName::URI(_) => asked.uris += 1,
                _ => {}
            }
        }
    }
    Ok(asked)
}

/// Whether `signer` may sign this. `None` when it is no signer of ours.
pub(crate) fn check(signer: &str, asked: &Asked, usages: &[String]) -> Option<Result<(), String>> {
    match signer {
        CLIENT => Some(client(usages)),
        KUBELET_CLIENT => Some(kubelet_client(asked, usages)),
        KUBELET_SERVING => Some(kubelet_serving(asked, usages)),
        LEGACY => Some(Ok(())),
        _ => None,
    }
}

fn client(usages: &[String]) -> Result<(), String> {
    let optional = ["digital signature", "key encipherment"];
    if let Some(other) = usages.iter().find(|one| *one != "client auth" && !optional.contains(&one.as_str())) {
        return Err(format!("invalid usage for client certificate: {other}"));
    }
    if usages.iter().any(|one| one == "client auth") {
        return Ok(());
    }
    Err("missing required usage for client certificate: client auth".into())
}

fn kubelet_client(asked: &Asked, usages: &[String]) -> Result<(), String> {
    is_of_nodes(asked)?;
    for (count, what) in
        [(asked.dns_names, "DNS"), (asked.emails, "Email"), (asked.addresses, "IP"), (asked.uris, "URI")]
    {
        if count > 0 {
            return Err(format!("{what} subjectAltNames are not allowed"));
        }
    }
    is_named_as_node(asked)?;
    are_exactly(usages, "client auth")
}

fn kubelet_serving(asked: &Asked, usages: &[String]) -> Result<(), String> {
    is_of_nodes(asked)?;
    if asked.dns_names == 0 && asked.addresses == 0 {
        return Err("DNS or IP subjectAltName is required".into());
    }
    for (count, what) in [(asked.emails, "Email"), (asked.uris, "URI")] {
        if count > 0 {
            return Err(format!("{what} subjectAltNames are not allowed"));
        }
    }
    are_exactly(usages, "server auth")?;
    is_named_as_node(asked)
}

fn is_of_nodes(asked: &Asked) -> Result<(), String> {
    let is_one = matches!(asked.organizations.as_slice(), [only] if only == "system:nodes");
    if is_one { Ok(()) } else { Err("subject organization is not system:nodes".into()) }
}

fn is_named_as_node(asked: &Asked) -> Result<(), String> {
    if asked.common_name.starts_with("system:node:") {
        return Ok(());
    }
    Err("subject common name does not begin with system:node:".into())
}

/// `auth` and a digital signature, with or without key encipherment (which only RSA keys do).
fn are_exactly(usages: &[String], auth: &str) -> Result<(), String> {
    let has = |usage: &str| usages.iter().any(|one| one == usage);
    let known = [auth, "digital signature", "key encipherment"];
    if has(auth) && has("digital signature") && usages.iter().all(|one| known.contains(&one.as_str())) {
        return Ok(());
    }
    let mut expected = known;
    expected.sort_unstable();
    Err(format!("usages did not match [{}]", expected.join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(list: &[&str]) -> Vec<String> {
        list.iter().map(ToString::to_string).collect()
    }

    #[track_caller]
    fn refused(signer: &str, asked: &Asked, usages: &[&str], why: &str) {
        assert_eq!(check(signer, asked, &texts(usages)), Some(Err(why.to_owned())));
    }

    #[test]
    fn each_signer_has_its_rules() {
        let node =
            Asked { common_name: "system:node:n1".into(), organizations: texts(&["system:nodes"]), ..Asked::default() };
        let usages = ["digital signature", "client auth"];
        assert_eq!(check(KUBELET_CLIENT, &node, &texts(&usages)), Some(Ok(())));
        refused(
            KUBELET_CLIENT,
            &node,
            &["client auth"],
            "usages did not match [client auth digital signature key encipherment]",
        );
        let named = Asked { dns_names: 1, ..node.clone() };
        refused(KUBELET_CLIENT, &named, &usages, "DNS subjectAltNames are not allowed");
        let other = Asked { organizations: texts(&["system:nodes", "x"]), ..node.clone() };
        refused(KUBELET_CLIENT, &other, &usages, "subject organization is not system:nodes");
        let serving = ["digital signature", "key encipherment", "server auth"];
        refused(KUBELET_SERVING, &node, &serving, "DNS or IP subjectAltName is required");
        assert_eq!(check(KUBELET_SERVING, &named, &texts(&serving)), Some(Ok(())));
        refused(CLIENT, &node, &["server auth"], "invalid usage for client certificate: server auth");
        refused(CLIENT, &node, &[], "missing required usage for client certificate: client auth");
        assert_eq!(check("example.com/x", &node, &[]), None);
        assert!(read(b"nonsense").is_err());
    }
}
