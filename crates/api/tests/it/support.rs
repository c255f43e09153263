//! A server and short ways to ask it.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use skiff_api::authn::jws::SigningKey;
use skiff_api::authn::{MASTERS, StaticToken, UserInfo};
use skiff_api::authz::{AllowAll, Authorizer};
use skiff_api::body::Body;
use skiff_api::{ApiServer, Config, Local, bootstrap};
use skiff_base::{Clock, Random, Shutdown, Tasks};
use skiff_object::{Tree, json};
use skiff_store::memory::MemoryStore;

/// The bearer token of a member of `system:masters`.
pub(crate) const ADMIN_TOKEN: &str = "token-of-the-admin";

/// A server with what every cluster begins with, and a `default` service account.
pub(crate) struct Api {
    pub(crate) server: Arc<ApiServer>,
    pub(crate) store: Arc<MemoryStore>,
    local: Local,
}

/// What a request was answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn tree(&self) -> Tree {
        json::decode_untyped(&self.body).unwrap_or_default()
    }

    /// Status code and, for a failure, its reason and message.
    pub(crate) fn line(&self) -> String {
        let tree = self.tree();
        if self.status.is_success() {
            return self.status.as_u16().to_string();
        }
        format!("{} {}: {}", self.status.as_u16(), tree.str_at(&["reason"]), tree.str_at(&["message"]))
    }

    pub(crate) fn at(&self, path: &[&str]) -> String {
        match self.tree().at(path) {
            None => "-".into(),
            Some(Tree::Str(text)) => text.to_string(),
            Some(other) => String::from_utf8(json::encode_untyped(other)).unwrap(),
        }
    }
}

pub(crate) async fn api() -> Api {
    api_with(Arc::new(AllowAll)).await
}

pub(crate) async fn api_with(authorizer: Arc<dyn Authorizer>) -> Api {
    api_of(|config| Config { authorizer, ..config }).await
}

/// A server whose configuration is changed before it is made.
pub(crate) async fn api_of(change: impl FnOnce(Config) -> Config) -> Api {
    api_over(Arc::new(MemoryStore::new(Clock::system())), change).await
}

/// A server over a store that may be there already.
pub(crate) async fn api_over(store: Arc<MemoryStore>, change: impl FnOnce(Config) -> Config) -> Api {
    let (clock, random) = (Clock::system(), Random::seeded(7));
    let server = ApiServer::new(change(Config {
        authorizer: Arc::new(AllowAll),
        anonymous: true,
        static_tokens: vec![StaticToken { token: ADMIN_TOKEN.into(), user: UserInfo::new("admin", &[MASTERS]) }],
        ..Config::new(
            "test",
            store.clone(),
            clock,
            random,
            Tasks::new("api", Shutdown::new()),
            SigningKey::generate().unwrap(),
        )
    }))
    .unwrap();
    bootstrap::run(&server).await.unwrap();
    let local = server.local(UserInfo::new("tester", &[MASTERS]));
    let api = Api { server, store, local };
    api.post("/api/v1/namespaces/default/serviceaccounts", r#"{"metadata":{"name":"default"}}"#).await;
    api
}

impl Api {
    pub(crate) fn as_user(&self, user: UserInfo) -> Self {
        Self { server: self.server.clone(), store: self.store.clone(), local: self.server.local(user) }
    }

    pub(crate) async fn open(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> http::Response<Body> {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.local.call(request.body(Bytes::copy_from_slice(body)).unwrap()).await
    }

    pub(crate) async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let (head, body) = self.open(method, path, headers, body).await.into_parts();
        Answer { status: head.status, headers: head.headers, body: body.collect().await.unwrap() }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], b"").await
    }

    pub(crate) async fn post(&self, path: &str, body: &str) -> Answer {
        self.send(Method::POST, path, &[("content-type", "application/json")], body.as_bytes()).await
    }

    pub(crate) async fn put(&self, path: &str, body: &str) -> Answer {
        self.send(Method::PUT, path, &[("content-type", "application/json")], body.as_bytes()).await
    }

    pub(crate) async fn patch(&self, kind: &str, path: &str, body: &str) -> Answer {
        let content_type = match kind {
            "apply" => "application/apply-patch+yaml".to_owned(),
            kind => format!("application/{kind}-patch+json"),
        };
        self.send(Method::PATCH, path, &[("content-type", &content_type)], body.as_bytes()).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.send(Method::DELETE, path, &[], b"").await
    }
}

pub(crate) const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
pub(crate) const PODS: &str = "/api/v1/namespaces/default/pods";
pub(crate) const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

pub(crate) fn pod(name: &str) -> String {
    format!(r#"{{"metadata":{{"name":"{name}"}},"spec":{{"containers":[{{"name":"c","image":"i"}}]}}}}"#)
}

pub(crate) fn deployment(name: &str) -> String {
    format!(
        r#"{{"metadata":{{"name":"{name}"}},"spec":{{"selector":{{"matchLabels":{{"a":"b"}}}},"template":
        {{"metadata":{{"labels":{{"a":"b"}}}},"spec":{{"containers":[{{"name":"c","image":"i"}}]}}}}}}}}"#
    )
}
