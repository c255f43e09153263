//! Who asks for a certificate and who decides about it.

use std::sync::Arc;

use skiff_api::authn::UserInfo;
use skiff_api::authz::{Attributes, Authorizer, Decision, Rules, Target};

use crate::support::{api, api_with};

const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
const JANE: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests/jane";
const APPROVAL: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests/jane/approval";
const REQUEST: &str = r#"{"metadata":{"name":"jane"},"spec":{"request":"LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0KTUFBPQotLS0tLUVORCBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0K","username":"root",
    "signerName":"kubernetes.io/kube-apiserver-client","usages":["client auth"]}}"#;

fn decision(ty: &str) -> String {
    format!(
        r#"{{"apiVersion":"certificates.k8s.io/v1","kind":"CertificateSigningRequest","metadata":{{"name":"jane"}},
        "spec":{{"request":"eA==","signerName":"example.com/other","usages":["client auth"]}},
        "status":{{"certificate":"eA==","conditions":[{{"type":"{ty}","status":"True","reason":"Test"}}]}}}}"#
    )
}

/// Lets everybody do everything but approve.
struct NoApprover;

impl Authorizer for NoApprover {
    fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        match attributes.target {
            Target::Resource { resource: "signers", .. } => Decision::NoOpinion(String::new()),
            _ => Decision::Allow(String::new()),
        }
    }

    fn rules(&self, _: &UserInfo, _: &str) -> Rules {
        Rules::default()
    }
}

#[tokio::test]
async fn the_server_writes_down_who_asks() {
    let api = api().await.as_user(UserInfo::new("jane", &["devs"]));
    let made = api.post(REQUESTS, REQUEST).await;
    assert_eq!(made.at(&["spec", "username"]), "jane");
    assert_eq!(made.at(&["spec", "groups"]), r#"["devs","system:authenticated"]"#);
}

#[tokio::test]
async fn an_approval_decides_and_does_nothing_else() {
    let api = api().await;
    api.post(REQUESTS, REQUEST).await;
    let approved = api.put(APPROVAL, &decision("Approved")).await;
    assert_eq!(approved.line(), "200");
    assert_eq!(approved.at(&["spec", "signerName"]), "kubernetes.io/kube-apiserver-client");
    assert_eq!(approved.at(&["status", "certificate"]), "-");
    assert!(approved.at(&["status", "conditions"]).contains("\"lastTransitionTime\":\""));
    assert!(api.put(APPROVAL, &decision("Denied")).await.line().starts_with("422 Invalid"));
    let status = api.put(&format!("{JANE}/status"), &decision("Failed")).await;
    let conditions = status.at(&["status", "conditions"]);
    assert!(conditions.contains("Approved") && conditions.contains("Failed"), "{conditions}");
    assert_eq!(status.at(&["status", "certificate"]), "eA==");
}

#[tokio::test]
async fn deciding_needs_a_say_over_the_signer() {
    let api = api_with(Arc::new(NoApprover)).await;
    api.post(REQUESTS, REQUEST).await;
    let refused = api.as_user(UserInfo::new("joe", &[])).put(APPROVAL, &decision("Approved")).await.line();
    let refusal = "403 Forbidden: certificatesigningrequests.certificates.k8s.io \"jane\" is forbidden: user not \
                   permitted to approve requests with signerName \"kubernetes.io/kube-apiserver-client\"";
    assert_eq!(refused, refusal);
    let signed =
        api.as_user(UserInfo::new("joe", &[])).put(&format!("{JANE}/status"), &decision("Failed")).await.line();
    assert_eq!(signed, refusal.replace("approve", "sign"));
}

#[tokio::test]
async fn nobody_asks_for_a_certificate_of_the_masters() {
    use base64::Engine;
    let api = api().await;
    let ask = |signer: &str, group: &str, ending: &str| {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, "joe");
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "devs");
        params.distinguished_name.push(rcgen::DnType::OrganizationName, group);
        let request = params.serialize_request(&rcgen::KeyPair::generate().unwrap()).unwrap().pem().unwrap();
        let request = request.replace("\r\n", "\n").replace('\n', ending);
        let request = base64::engine::general_purpose::STANDARD.encode(request);
        format!(
            r#"{{"metadata":{{"generateName":"joe-"}},"spec":{{"request":"{request}","signerName":"{signer}","usages":["client auth"]}}}}"#
        )
    };
    let client = "kubernetes.io/kube-apiserver-client";
    for ending in ["\n", "\r\n"] {
        let refused = api.post(REQUESTS, &ask(client, "system:masters", ending)).await.line();
        let why = "use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed";
        assert!(refused.starts_with("403 Forbidden") && refused.ends_with(why), "{refused}");
    }
    assert_eq!(api.post(REQUESTS, &ask(client, "ops", "\n")).await.line(), "201");
    assert_eq!(api.post(REQUESTS, &ask("example.com/other", "system:masters", "\n")).await.line(), "201");
}
