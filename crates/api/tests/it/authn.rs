//! Who a request comes from: tokens of other issuers, of webhooks, of bootstrapping machines.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use parking_lot::Mutex;
use skiff_api::Config;
use skiff_api::authn::jws::{Jwk, SigningKey};
use skiff_api::authn::settings::ConfigurationFile;
use skiff_api::authn::{Settings, jwt, webhook};
use skiff_api::body::RequestBody;
use skiff_api::outbound::{Address, Target, Trust};
use skiff_api::serve::Peer;
use skiff_object::Tree;

use crate::remote::{Remote, answering};
use crate::support::{Api, PODS, api, api_of, pod};

const REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";

/// What a `TokenReview` says: the user with its groups, or the error.
async fn review(api: &Api, token: &str) -> String {
    let answer = api.post(REVIEWS, &format!(r#"{{"spec":{{"token":"{token}"}}}}"#)).await;
    let status = answer.tree().at(&["status"]).cloned().unwrap_or_default();
    if status.bool_at(&["authenticated"]) != Some(true) {
        return status.str_at(&["error"]).to_owned();
    }
    let groups: Vec<_> = status.list_at(&["user", "groups"]).iter().filter_map(Tree::as_str).collect();
    format!("{} [{}]", status.str_at(&["user", "username"]), groups.join(" "))
}

/// An issuer of tokens with keys that can be changed.
struct Issuer {
    remote: Remote,
    url: String,
    keys: Arc<Mutex<Vec<Jwk>>>,
    fetched: Arc<AtomicUsize>,
    key: SigningKey,
}

fn new_key() -> SigningKey {
    SigningKey::from_der(&SigningKey::generate().unwrap()).unwrap()
}

impl Issuer {
    async fn start() -> Self {
        let key = new_key();
        let keys = Arc::new(Mutex::new(vec![key.public().jwk()]));
        let url = Arc::new(Mutex::new(String::new()));
        let fetched = Arc::new(AtomicUsize::new(0));
        let (shared_keys, shared_url, count) = (Arc::clone(&keys), Arc::clone(&url), Arc::clone(&fetched));
        let remote = Remote::start(
            &["127.0.0.1"],
            answering(move |request: Request<Bytes>| {
                let url = shared_url.lock().clone();
                let body = match request.uri().path() {
                    "/.well-known/openid-configuration" => {
                        serde_json::json!({"issuer": url, "jwks_uri": format!("{url}/keys")})
                    }
                    "/keys" => {
                        count.fetch_add(1, Ordering::Relaxed);
                        serde_json::json!({"keys": *shared_keys.lock()})
                    }
                    _ => return Response::builder().status(404).body(Bytes::new()).unwrap(),
                };
                Response::new(Bytes::from(body.to_string()))
            }),
        )
        .await;
        let name = format!("https://{}", remote.address);
        url.lock().clone_from(&name);
        Self { remote, url: name, keys, fetched, key }
    }

    fn token(&self, claims: &str) -> String {
        let now = skiff_base::Clock::system().now().as_secs();
        let claims = claims.trim_start_matches('{');
        let text = format!(r#"{{"iss":"{}","iat":{now},"exp":{},{claims}"#, self.url, now + 600);
        self.key.sign(text.as_bytes()).unwrap()
    }

    /// A server that believes the issuer, with more lines for its entry in the configuration.
    async fn believed(&self, mappings: &str) -> Api {
        let authority = self.remote.authority.replace('\n', "\n      ");
        let text = format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\njwt:\n- issuer:\n    \
             url: {}\n    audiences: [skiff, other]\n    audienceMatchPolicy: MatchAny\n    certificateAuthority: |\n      \
             {authority}\n{mappings}",
            self.url
        );
        let configuration = Some(ConfigurationFile { text, path: None });
        api_of(|config| Config { authn: Settings { configuration, ..Settings::default() }, ..config }).await
    }
}

const BY_CLAIMS: &str = "  claimMappings:\n    username: {claim: sub, prefix: 'oidc:'}\n    \
                         groups: {claim: groups, prefix: 'oidc:'}\n  claimValidationRules:\n  \
                         - {claim: hd, requiredValue: acme}\n";

#[tokio::test]
async fn claims_become_user_and_groups() {
    let issuer = Issuer::start().await;
    let api = issuer.believed(BY_CLAIMS).await;
    let token = issuer.token(r#"{"aud":"skiff","sub":"jane","groups":["a","b"],"hd":"acme"}"#);
    assert_eq!(review(&api, &token).await, "oidc:jane [oidc:a oidc:b system:authenticated]");
    let one_group = issuer.token(r#"{"aud":["x","other"],"sub":"jane","groups":"a","hd":"acme"}"#);
    assert_eq!(review(&api, &one_group).await, "oidc:jane [oidc:a system:authenticated]");
    for (claims, why) in [
        (
            r#"{"aud":"else","sub":"j","hd":"acme"}"#,
            r#"oidc: verify token: oidc: expected audience in ["skiff" "other"] got ["else"]"#,
        ),
        (r#"{"aud":"skiff","sub":"j"}"#, "oidc: required claim hd not present in ID token"),
        (
            r#"{"aud":"skiff","sub":"j","hd":"evil"}"#,
            "oidc: required claim hd value does not match. Got = evil, want = acme",
        ),
        (r#"{"aud":"skiff","hd":"acme"}"#, r#"oidc: parse username claims "sub": claim not present"#),
        (r#"{"aud":"skiff","sub":"j","hd":"acme","exp":1}"#, "token is expired (Token Expiry: 1970-01-01T00:00:01Z)"),
    ] {
        let said = review(&api, &issuer.token(claims)).await;
        assert!(said.starts_with("[invalid bearer token, oidc: ") && said.contains(why), "{said}");
    }
}

#[tokio::test]
async fn new_keys_are_fetched_and_strangers_keys_are_not_believed() {
    let mut issuer = Issuer::start().await;
    let api = issuer.believed(BY_CLAIMS).await;
    let claims = r#"{"aud":"skiff","sub":"jane","hd":"acme"}"#;
    assert_eq!(review(&api, &issuer.token(claims)).await, "oidc:jane [system:authenticated]");
    let old = std::mem::replace(&mut issuer.key, new_key());
    let stolen = issuer.token(claims);
    let refused = review(&api, &stolen).await;
    assert!(refused.contains("failed to verify"), "{refused}");
    *issuer.keys.lock() = vec![old.public().jwk(), issuer.key.public().jwk()];
    // Keys are fetched again once a second at most.
    tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
    assert_eq!(review(&api, &stolen).await, "oidc:jane [system:authenticated]");
    let before = issuer.fetched.load(Ordering::Relaxed);
    for _ in 0..20 {
        issuer.key = new_key();
        review(&api, &issuer.token(claims)).await;
    }
    assert!(issuer.fetched.load(Ordering::Relaxed) <= before + 1);
}

#[tokio::test]
async fn the_oidc_flags_mean_the_same() {
    let issuer = Issuer::start().await;
    let oidc = jwt::config::Flags {
        issuer_url: issuer.url.clone(),
        client_id: "skiff".into(),
        certificate_authority: issuer.remote.authority.clone(),
        username_claim: "email".into(),
        groups_claim: "groups".into(),
        signing_algs: vec!["ES256".into()],
        ..jwt::config::Flags::default()
    };
    let api = api_of(|config| Config { authn: Settings { oidc, ..Settings::default() }, ..config }).await;
    let token = issuer.token(r#"{"aud":"skiff","email":"jane@acme","email_verified":true,"groups":["a"]}"#);
    assert_eq!(review(&api, &token).await, "jane@acme [a system:authenticated]");
    let unverified = issuer.token(r#"{"aud":"skiff","email":"jane@acme","email_verified":false}"#);
    assert!(review(&api, &unverified).await.contains("oidc: email not verified"));
}

#[tokio::test]
async fn a_webhook_is_asked_once_for_a_token() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let remote = Remote::start(
        &["127.0.0.1"],
        answering(move |request: Request<Bytes>| {
            count.fetch_add(1, Ordering::Relaxed);
            let review: serde_json::Value = serde_json::from_slice(request.body()).unwrap();
            assert_eq!(review["apiVersion"], "authentication.k8s.io/v1");
            let status = match review["spec"]["token"].as_str().unwrap() {
                "good" => serde_json::json!({"authenticated": true,
                    "user": {"username": "jane", "groups": ["devs"], "extra": {"k": ["v"]}}}),
                "bad" => serde_json::json!({"error": "no such token"}),
                _ => serde_json::json!({}),
            };
            Response::new(Bytes::from(serde_json::json!({"status": status}).to_string()))
        }),
    )
    .await;
    let trust = Trust::Authorities(remote.authority.clone().into_bytes());
    let target = Target { trust, ..Target::new(Address::Url(format!("https://{}/authenticate", remote.address))) };
    let webhook = Some(webhook::Settings { version: "v1".into(), ..webhook::Settings::new(target) });
    let api = api_of(|config| Config { authn: Settings { webhook, ..Settings::default() }, ..config }).await;
    for _ in 0..3 {
        assert_eq!(review(&api, "good").await, "jane [devs system:authenticated]");
    }
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    assert_eq!(review(&api, "bad").await, "[invalid bearer token, no such token]");
    assert_eq!(review(&api, "unknown").await, "invalid bearer token");
}

#[tokio::test]
async fn bootstrap_tokens_live_in_secrets() {
    let authn = || Settings { bootstrap_tokens: true, ..Settings::default() };
    let api = api_of(|config| Config { authn: authn(), ..config }).await;
    let secret = |id: &str, more: &str| {
        format!(
            r#"{{"metadata":{{"name":"bootstrap-token-{id}"}},"type":"bootstrap.kubernetes.io/token","stringData":
            {{"token-id":"{id}","token-secret":"0123456789abcdef","usage-bootstrap-authentication":"true"{more}}}}}"#
        )
    };
    let path = "/api/v1/namespaces/kube-system/secrets";
    let groups = r#","auth-extra-groups":"system:bootstrappers:kubeadm:default-node-token""#;
    assert_eq!(api.post(path, &secret("aaaaaa", groups)).await.line(), "201");
    assert_eq!(
        review(&api, "aaaaaa.0123456789abcdef").await,
        "system:bootstrap:aaaaaa [system:bootstrappers system:bootstrappers:kubeadm:default-node-token \
         system:authenticated]"
    );
    assert_eq!(review(&api, "aaaaaa.0123456789abcdee").await, "invalid bearer token");
    for (id, more) in [
        ("bbbbbb", r#","expiration":"2020-01-01T00:00:00Z""#),
        ("cccccc", r#","auth-extra-groups":"system:masters""#),
        ("dddddd", r#","usage-bootstrap-authentication":"false""#),
    ] {
        assert_eq!(api.post(path, &secret(id, more)).await.line(), "201");
        assert_eq!(review(&api, &format!("{id}.0123456789abcdef")).await, "invalid bearer token", "{id}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_configuration_file_that_changes_is_taken_over() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let text = |paths: &str| {
        format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\nanonymous:\n  enabled: true\n  \
             conditions: [{paths}]\n"
        )
    };
    std::fs::write(file.path(), text("{path: /livez}")).unwrap();
    let configuration = Some(ConfigurationFile { text: text("{path: /livez}"), path: Some(file.path().to_owned()) });
    let api = api_of(|config| Config { authn: Settings { configuration, ..Settings::default() }, ..config }).await;
    let status = async |path: &str| {
        let request = Request::get(path).body(RequestBody::Whole(Bytes::new())).unwrap();
        let peer = Peer::Remote { address: ([127, 0, 0, 1], 1).into(), certificate: None };
        api.server.handle(request, peer).await.status().as_u16()
    };
    assert_eq!((status("/livez").await, status("/readyz").await), (200, 401));
    std::fs::write(file.path(), text("{path: /readyz}")).unwrap();
    for _ in 0..10 {
        tokio::time::sleep(std::time::Duration::from_secs(61)).await;
        if status("/readyz").await == 200 {
            break;
        }
    }
    assert_eq!((status("/livez").await, status("/readyz").await), (401, 200));
    std::fs::write(file.path(), "nonsense: 1").unwrap();
    tokio::time::sleep(std::time::Duration::from_secs(130)).await;
    assert_eq!(status("/readyz").await, 200);
}

#[tokio::test]
async fn a_bound_token_says_where_its_pod_runs_and_ends_with_its_account() {
    let api = api().await;
    api.post("/api/v1/nodes", r#"{"metadata":{"name":"n1"}}"#).await;
    let bound = pod("p").replace(r#""spec":{"#, r#""spec":{"nodeName":"n1","#);
    assert_eq!(api.post(PODS, &bound).await.line(), "201");
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    let path = format!("{accounts}/default/token");
    let body = r#"{"spec":{"audiences":["vault"],"boundObjectRef":{"apiVersion":"v1","kind":"Pod","name":"p"}}}"#;
    let token = api.post(&path, body).await.at(&["status", "token"]);
    assert!(review(&api, &token).await.contains(r#"token audiences ["vault"] is invalid for the target audiences"#));
    let for_vault = format!(r#"{{"spec":{{"token":"{token}","audiences":["vault","x"]}}}}"#);
    let answer = api.post(REVIEWS, &for_vault).await;
    assert_eq!(answer.at(&["status", "audiences"]), r#"["vault"]"#);
    assert_eq!(answer.at(&["status", "user", "extra", "authentication.kubernetes.io/node-name"]), r#"["n1"]"#);
    api.delete(&format!("{accounts}/default")).await;
    let gone = api.post(REVIEWS, &for_vault).await.at(&["status", "error"]);
    assert_eq!(gone, "[invalid bearer token, serviceaccounts \"default\" not found]");
    assert_eq!(api.get("/openid/v1/jwks").await.status, StatusCode::OK);
}
