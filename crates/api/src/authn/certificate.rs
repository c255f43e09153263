//! A verified client certificate as a user: common name and organizations.

use x509_parser::prelude::{FromDer, X509Certificate};

use super::UserInfo;

/// The user of a certificate whose chain has been verified; `None` without a common name.
pub fn user(der: &[u8]) -> Option<UserInfo> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let subject = certificate.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?;
    let groups: Vec<&str> = subject.iter_organization().filter_map(|value| value.as_str().ok()).collect();
    if name.is_empty() {
        return None;
    }
    let mut user = UserInfo::new(name, &groups);
    user.extra.insert("authentication.kubernetes.io/credential-id".into(), vec![credential_id(der)]);
    Some(user)
}

fn credential_id(der: &[u8]) -> String {
    use std::fmt::Write;
    let digest = ring::digest::digest(&ring::digest::SHA256, der);
    digest.as_ref().iter().fold(String::from("X509SHA256="), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_name_and_organizations_become_user_and_groups() {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, "admin");
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "system:masters");
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let user = user(certificate.der()).unwrap();
        assert_eq!(user.name, "admin");
        assert_eq!(user.groups, ["system:masters", "system:authenticated"]);
        assert_eq!(super::user(b"no certificate"), None);
    }
}
