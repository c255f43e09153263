//! Every stable operation of upstream's list, sent to a server of ours: each is answered with what it is for, and
//! what is not on the list is not answered.
//!
//! The server has no node, so operations that reach into a pod must fail there and nowhere before.

mod bodies;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use serde_json::{Value, json};
use skiff_api::authn::jws::SigningKey;
use skiff_api::authn::{MASTERS, UserInfo};
use skiff_api::{ApiServer, Config, Local, bootstrap};
use skiff_base::{Clock, Random, Shutdown, Tasks};
use skiff_store::memory::MemoryStore;

/// The namespace of everything that has one.
const NAMESPACE: &str = "default";
/// Operations that are not served, and why.
const ABSENT: [(&str, &str); 2] = [
    ("logFileListHandler", "optional upstream: no files of the machine are served"),
    ("logFileHandler", "optional upstream: no files of the machine are served"),
];
/// What the list calls beta, but every client of a service account's issuer needs.
const ISSUER: [&str; 2] = ["/.well-known/openid-configuration/", "/openid/v1/jwks/"];
const MERGE_PATCH: &str = "application/merge-patch+json";

/// One line of `api_operations.tsv`.
struct Operation {
    group: String,
    version: String,
    kind: String,
    action: String,
    path: String,
    id: String,
}

/// Sends the operations of `FOLDER/api_operations.tsv`.
pub(crate) fn run(folder: &Path) -> Result<()> {
    let list = std::fs::read_to_string(folder.join("api_operations.tsv")).context("read the list")?;
    let (stable, others): (Vec<_>, Vec<_>) =
        list.lines().skip(1).filter_map(read).partition(|(level, _)| level == "stable");
    let stable: Vec<Operation> = stable.into_iter().map(|(_, operation)| operation).collect();
    let others: Vec<Operation> = others.into_iter().map(|(_, operation)| operation).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let wrong = runtime.block_on(check(&stable, &others))?;
    println!("{} stable operations sent, {} not served", stable.len(), ABSENT.len());
    if !wrong.is_empty() {
        bail!("{} answers are wrong:\n{}", wrong.len(), wrong.join("\n"));
    }
    Ok(())
}

fn read(line: &str) -> Option<(String, Operation)> {
    let [level, group, version, kind, action, path, id, ..] = line.split('\t').collect::<Vec<_>>()[..] else {
        return None;
    };
    let owned = str::to_owned;
    let group = if group == "core" { String::new() } else { owned(group) };
    let [version, kind, action, path, id] = [version, kind, action, path, id].map(owned);
    Some((owned(level), Operation { group, version, kind, action, path, id }))
}

async fn check(stable: &[Operation], others: &[Operation]) -> Result<Vec<String>> {
    let mut caller = Caller { local: server().await?, made: 0 };
    let mut wrong = Vec::new();
    let absent: BTreeMap<&str, &str> = ABSENT.into_iter().collect();
    for operation in stable {
        let outcome = caller.operation(operation).await;
        match (outcome, absent.contains_key(operation.id.as_str())) {
            (Err(error), false) => wrong.push(format!("{}: {error:#}", operation.id)),
            (Ok(()), true) => wrong.push(format!("{}: is served: take it out of ABSENT", operation.id)),
            _ => {}
        }
    }
    wrong.extend(caller.none_by_accident(stable, others).await?);
    Ok(wrong)
}

async fn server() -> Result<Local> {
    let (clock, random) = (Clock::system(), Random::system());
    let store = Arc::new(MemoryStore::new(clock.clone()));
    let tasks = Tasks::new("api", Shutdown::new());
    let server = ApiServer::new(Config::new("operations", store, clock, random, tasks, SigningKey::generate()?))?;
    bootstrap::run(&server).await?;
    let local = server.local(UserInfo::new("operations", &[MASTERS]));
    let mut caller = Caller { local, made: 0 };
    let account = json!({"metadata": {"name": "default"}});
    caller.must("POST", "/api/v1/namespaces/default/serviceaccounts", &account).await?;
    Ok(caller.local)
}

/// What was answered.
struct Answer {
    status: StatusCode,
    body: Value,
}

impl Answer {
    fn kind(&self) -> &str {
        self.body["kind"].as_str().unwrap_or_default()
    }

    fn shown(&self) -> String {
        let message = self.body["message"].as_str().unwrap_or_default();
        format!("{} {} {message}", self.status.as_u16(), self.kind())
    }

    /// Whether the answer is an object of one of the kinds, with its type.
    fn is(&self, codes: &[u16], kinds: &[&str]) -> Result<()> {
        ensure!(codes.contains(&self.status.as_u16()), "answered {}", self.shown());
        ensure!(kinds.contains(&self.kind()), "a {:?} was expected: {}", kinds, self.shown());
        ensure!(self.body["apiVersion"].is_string(), "no apiVersion: {}", self.body);
        Ok(())
    }

    /// Whether the operation is known and failed for lack of a node, in words.
    fn is_a_clear_failure(&self) -> Result<()> {
        let code = self.status.as_u16();
        ensure!(code >= 400 && ![404, 405, 501].contains(&code), "answered {}", self.shown());
        ensure!(self.kind() == "Status" && self.body["message"] != "", "no Status: {}", self.shown());
        Ok(())
    }
}

struct Caller {
    local: Local,
    /// Objects made so far; each has a name of its own.
    made: usize,
}

impl Caller {
    async fn send(&self, method: &str, path: &str, content_type: &str, body: &Value) -> Result<Answer> {
        let bytes = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
        let request = Request::builder().method(method).uri(path).header("content-type", content_type).body(bytes)?;
        let (head, body) = self.local.call(request).await.into_parts();
        let bytes = body.collect().await.map_err(|error| anyhow::anyhow!("{error:?}"))?;
        Ok(Answer { status: head.status, body: serde_json::from_slice(&bytes).unwrap_or_default() })
    }

    async fn must(&mut self, method: &str, path: &str, body: &Value) -> Result<Value> {
        let answer = self.send(method, path, "application/json", body).await?;
        ensure!(answer.status.is_success(), "{method} {path}: {}", answer.shown());
        Ok(answer.body)
    }

    /// Makes an object of the collection; gives its name and itself.
    async fn make(&mut self, collection: &str) -> Result<(String, Value)> {
        self.made += 1;
        let kind = bodies::kind_of(collection);
        let (group, version) = match collection.trim_matches('/').split('/').collect::<Vec<_>>()[..] {
            ["apis", group, version, ..] => (group, version),
            _ => ("", "v1"),
        };
        let body = bodies::object(kind, group, version, self.made)?;
        let made = self.must("POST", collection, &body).await.context("make one")?;
        Ok((made["metadata"]["name"].as_str().unwrap_or_default().to_owned(), made))
    }

    /// Sends one operation with what it needs, and looks at the answer.
    async fn operation(&mut self, operation: &Operation) -> Result<()> {
        if operation.kind.is_empty() {
            return self.document(&operation.path).await;
        }
        let path = operation.path.replace("{namespace}", NAMESPACE).replace("{path}", "a/b");
        let kind = operation.kind.as_str();
        let Some((collection, rest)) = path.split_once("/{name}") else {
            return self.on_collection(operation, &path).await;
        };
        if kind == "ComponentStatus" {
            let path = format!("{collection}/etcd-0");
            return self.send("GET", &path, "application/json", &Value::Null).await?.is(&[200], &[kind]);
        }
        let (name, object) = self.make(collection).await?;
        let path = format!("{collection}/{name}{rest}");
        let json_type = "application/json";
        match operation.action.as_str() {
            // A pod that is on no node has an empty log.
            "get" if rest == "/log" => {
                let answer = self.send("GET", &path, json_type, &Value::Null).await?;
                ensure!(answer.status == StatusCode::OK && answer.body.is_null(), "answered {}", answer.shown());
                Ok(())
            }
            "get" => self.send("GET", &path, json_type, &Value::Null).await?.is(&[200], &[kind]),
            "patch" => {
                let change = json!({"metadata": {"annotations": {"a": "b"}}});
                self.send("PATCH", &path, MERGE_PATCH, &change).await?.is(&[200], &[kind])
            }
            "put" => {
                let read = self.send("GET", &path, json_type, &Value::Null).await?;
                let body = if read.status.is_success() { read.body } else { object };
                self.send("PUT", &path, json_type, &body).await?.is(&[200], &[kind])
            }
            "delete" => {
                let answer = self.send("DELETE", &path, json_type, &Value::Null).await?;
                answer.is(&[200, 202], &[kind, "Status"])
            }
            "post" => {
                let body = bodies::subresource(kind, &name)?;
                let made = if kind == "TokenRequest" { kind } else { "Status" };
                self.send("POST", &path, json_type, &body).await?.is(&[201], &[made])
            }
            "connect" => {
                let method = bodies::connect_method(&operation.id).context("the method of a connect")?;
                let query = if rest == "/exec" { "?command=true&stdout=true" } else { "" };
                let answer = self.send(method, &format!("{path}{query}"), json_type, &Value::Null).await?;
                // A browser is led into the folder; HEAD has no body to look at.
                if method == "HEAD" || answer.status == StatusCode::MOVED_PERMANENTLY {
                    ensure!(![404, 405, 501].contains(&answer.status.as_u16()), "answered {}", answer.status);
                    return Ok(());
                }
                answer.is_a_clear_failure()
            }
            other => bail!("unknown action {other}"),
        }
    }

    async fn on_collection(&mut self, operation: &Operation, path: &str) -> Result<()> {
        let (kind, json_type) = (operation.kind.as_str(), "application/json");
        match operation.action.as_str() {
            "list" => self.send("GET", path, json_type, &Value::Null).await?.is(&[200], &[&format!("{kind}List")]),
            "deletecollection" => {
                let (name, _) = self.make(path).await?;
                let path = format!("{path}?fieldSelector=metadata.name%3D{name}");
                let list = format!("{kind}List");
                self.send("DELETE", &path, json_type, &Value::Null).await?.is(&[200], &[&list, "Status"])
            }
            "post" => {
                self.made += 1;
                let body = bodies::object(kind, &operation.group, &operation.version, self.made)?;
                if kind == "Binding" {
                    let pods = path.replace("bindings", "pods");
                    let pod = bodies::object("Pod", "", "v1", self.made)?;
                    self.must("POST", &pods, &pod).await.context("make a pod")?;
                    return self.send("POST", path, json_type, &body).await?.is(&[201], &["Status"]);
                }
                self.send("POST", path, json_type, &body).await?.is(&[201], &[kind])
            }
            other => bail!("unknown action {other}"),
        }
    }

    /// A document of discovery.
    async fn document(&self, path: &str) -> Result<()> {
        let answer = self.send("GET", path, "application/json", &Value::Null).await?;
        let parts = path.trim_matches('/').split('/').collect::<Vec<_>>();
        match parts.as_slice() {
            ["version"] => ensure!(answer.body["gitVersion"].is_string(), "answered {}", answer.shown()),
            ["logs", ..] => ensure!(answer.status == 403 || answer.status == 200, "answered {}", answer.shown()),
            ["api"] => ensure!(answer.kind() == "APIVersions", "answered {}", answer.shown()),
            ["apis"] => ensure!(answer.kind() == "APIGroupList", "answered {}", answer.shown()),
            ["apis", _] if answer.status == 404 => return nothing_stable(path),
            ["apis", _] => ensure!(answer.kind() == "APIGroup", "answered {}", answer.shown()),
            ["api", _] | ["apis", _, _] => {
                ensure!(answer.kind() == "APIResourceList", "answered {}", answer.shown());
            }
            _ => bail!("an unknown document"),
        }
        Ok(())
    }

    /// What the list does not have is refused: other methods on its paths, and all that is alpha or beta.
    async fn none_by_accident(&self, stable: &[Operation], others: &[Operation]) -> Result<Vec<String>> {
        let mut wrong = Vec::new();
        let mut known: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for operation in stable.iter().filter(|operation| !operation.kind.is_empty()) {
            let method = match operation.action.as_str() {
                "get" | "list" => "GET",
                "connect" => bodies::connect_method(&operation.id).context("the method of a connect")?,
                "post" => "POST",
                "put" => "PUT",
                "patch" => "PATCH",
                _ => "DELETE",
            };
            known.entry(&operation.path).or_default().insert(method);
        }
        for (path, methods) in &known {
            let target = path.replace("{namespace}", NAMESPACE).replace("{name}", "nobody").replace("{path}", "a");
            for method in
                ["GET", "POST", "PUT", "PATCH", "DELETE"].into_iter().filter(|method| !methods.contains(method))
            {
                let answer = self.send(method, &target, "application/json", &json!({})).await?;
                if answer.status != StatusCode::METHOD_NOT_ALLOWED {
                    wrong.push(format!("{method} {target} is on no list and answers {}", answer.shown()));
                }
            }
        }
        for operation in others.iter().filter(|operation| !known.contains_key(operation.path.as_str())) {
            if ISSUER.contains(&operation.path.as_str()) {
                continue;
            }
            let target = operation.path.replace("{namespace}", NAMESPACE).replace("{name}", "nobody");
            let answer = self.send(Method::GET.as_str(), &target, "application/json", &Value::Null).await?;
            if answer.status != StatusCode::NOT_FOUND {
                wrong.push(format!("{target} is not stable and answers {}", answer.shown()));
            }
        }
        Ok(wrong)
    }
}

/// Groups whose versions are all alpha or beta: upstream serves their group without a version.
fn nothing_stable(path: &str) -> Result<()> {
    let unstable = ["/apis/internal.apiserver.k8s.io/", "/apis/storagemigration.k8s.io/"];
    ensure!(unstable.contains(&path), "answered 404");
    Ok(())
}
