//! Who may ask the kubelet what.

use std::sync::Arc;

use k8s_openapi::api::authentication::v1::TokenRequestSpec;
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use serde_json::json;
use skiff_api::serve::{TlsMaterial, tls_config_for_anybody};
use skiff_client::DeleteOptions;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::rustls;

use crate::cluster::Cluster;

/// An authority and what it signed.
struct Authority {
    certificate: rcgen::Certificate,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self { certificate, issuer: rcgen::Issuer::new(params, key) }
    }

    fn issue(&self) -> (rcgen::Certificate, rcgen::KeyPair) {
        let params = rcgen::CertificateParams::new(vec!["node".into()]).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }
}

/// A kubelet behind TLS, as a cluster has it.
struct Guarded {
    cluster: Cluster,
    serving: Authority,
    clients: Authority,
}

impl Guarded {
    async fn start() -> Self {
        let (serving, clients) = (Authority::new(), Authority::new());
        let (certificate, key) = serving.issue();
        let tls = tls_config_for_anybody(&TlsMaterial {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
            client_authority: clients.certificate.pem(),
        });
        let mut tls = Arc::unwrap_or_clone(tls.unwrap());
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self { cluster: Cluster::start_with(Some(Arc::new(tls))).await, serving, clients }
    }

    /// The status and body of a GET; nothing when the connection is not taken.
    async fn get(&self, path: &str, token: Option<&str>, signer: Option<&Authority>) -> Option<(u16, String)> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.serving.certificate.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match signer.map(Authority::issue) {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let key = rustls::pki_types::PrivateKeyDer::Pkcs8(key.serialize_der().into());
                builder.with_client_auth_cert(vec![certificate.der().clone()], key).unwrap()
            }
        };
        let stream = TcpStream::connect(self.cluster.kubelet.address()).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let mut stream = connector.connect("node".try_into().unwrap(), stream).await.ok()?;
        let token = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
        let request = format!("GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n{token}\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        if answer.is_empty() {
            assert!(read.is_err(), "an answer or a refusal of the connection");
            return None;
        }
        let status = answer.split(' ').nth(1)?.parse().ok()?;
        Some((status, answer.split_once("\r\n\r\n")?.1.to_owned()))
    }

    /// A token of a new service account that may do this with nodes.
    async fn token(&self, name: &str, subresources: &[&str]) -> String {
        let client = &self.cluster.client;
        let mut account = ServiceAccount::default();
        account.metadata.name = Some(name.into());
        account.metadata.namespace = Some("default".into());
        client.create(&account).await.unwrap();
        if !subresources.is_empty() {
            let resources: Vec<String> = subresources.iter().map(|one| format!("nodes/{one}")).collect();
            let role = json!({"metadata": {"name": name}, "rules": [{"verbs": ["get"], "apiGroups": [""],
                "resources": resources}]});
            client.create(&serde_json::from_value::<ClusterRole>(role).unwrap()).await.unwrap();
            let binding = json!({"metadata": {"name": name}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io",
                "kind": "ClusterRole", "name": name},
                "subjects": [{"kind": "ServiceAccount", "namespace": "default", "name": name}]});
            client.create(&serde_json::from_value::<ClusterRoleBinding>(binding).unwrap()).await.unwrap();
        }
        let token = client.create_token("default", name, TokenRequestSpec::default()).await.unwrap();
        token.status.unwrap().token.unwrap()
    }

    async fn status(&self, path: &str, token: &str) -> u16 {
        self.get(path, Some(token), None).await.unwrap().0
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_open_what_their_users_may_have() {
    let kubelet = Guarded::start().await;
    assert_eq!(kubelet.get("/healthz", None, None).await, Some((401, "Unauthorized".into())));
    assert_eq!(kubelet.get("/healthz", Some("nonsense"), None).await, Some((401, "Unauthorized".into())));
    let stranger = kubelet.token("stranger", &[]).await;
    let refused = kubelet.get("/metrics/resource", Some(&stranger), None).await.unwrap();
    assert_eq!(
        refused,
        (
            403,
            "Forbidden (user=system:serviceaccount:default:stranger, verb=get, resource=nodes, \
             subresource(s)=[metrics])\n"
                .into()
        )
    );
    let refused = kubelet.get("/pods", Some(&stranger), None).await.unwrap().1;
    assert!(refused.ends_with("subresource(s)=[pods proxy])\n"), "{refused}");
    let scraper = kubelet.token("scraper", &["metrics", "stats"]).await;
    let answer = kubelet.get("/metrics/resource", Some(&scraper), None).await.unwrap();
    assert!(answer.0 == 200 && answer.1.contains("node_memory_working_set_bytes"), "{answer:?}");
    for (path, expected) in [("/stats/summary", 200), ("/pods", 403), ("/healthz", 403), ("/exec/default/p/c", 403)] {
        assert_eq!(kubelet.status(path, &scraper).await, expected, "{path}");
    }
    let prober = kubelet.token("prober", &["healthz"]).await;
    assert_eq!(kubelet.status("/healthz", &prober).await, 200);
    assert_eq!(kubelet.status("/pods", &prober).await, 403);
    let operator = kubelet.token("operator", &["proxy"]).await;
    for (path, expected) in [("/pods", 200), ("/healthz", 200), ("/metrics", 403), ("/exec/default/p/c", 404)] {
        assert_eq!(kubelet.status(path, &operator).await, expected, "{path}");
    }
    // A yes is remembered: the API server is not asked for each scrape.
    let options = DeleteOptions::default();
    kubelet.cluster.client.delete::<ClusterRoleBinding>("", "scraper", &options).await.unwrap();
    assert_eq!(kubelet.status("/metrics/resource", &scraper).await, 200);
    kubelet.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_api_server_shows_its_certificate_and_nobody_else_has_one() {
    let kubelet = Guarded::start().await;
    assert_eq!(kubelet.get("/pods", None, Some(&kubelet.clients)).await.unwrap().0, 200);
    // A certificate of any other authority ends the connection, a token beside it or not.
    assert_eq!(kubelet.get("/pods", None, Some(&Authority::new())).await, None);
    assert_eq!(kubelet.get("/pods", None, Some(&kubelet.serving)).await, None);
    kubelet.cluster.stop().await;
}
