//! What a test works with: a namespace of its own, the objects of the API as JSON, waiting for
//! what must become true, `kubectl`.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use futures::{AsyncBufReadExt, StreamExt, TryStreamExt};
use http::Request;
use serde_json::{Value, json};

use crate::cluster::Cluster;

/// Nothing that must become true takes longer.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often a condition that has no event is looked at.
const POLL: Duration = Duration::from_millis(50);

/// A test's way to the cluster.
#[derive(Clone)]
pub(crate) struct Context {
    cluster: Arc<Cluster>,
    /// The namespace made for this test.
    pub(crate) namespace: String,
}

/// An answer: the status code and the body, which is `null` where it is no JSON.
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) headers: http::HeaderMap,
    pub(crate) text: String,
    pub(crate) body: Value,
}

impl Context {
    /// Makes a namespace and waits until pods can be created in it.
    pub(crate) async fn new(cluster: Arc<Cluster>) -> anyhow::Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let namespace = format!("conformance-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let ctx = Self { cluster, namespace };
        ctx.create("/api/v1/namespaces", json!({"metadata": {"name": ctx.namespace}})).await?;
        let accounts = format!("/api/v1/namespaces/{}/serviceaccounts/default", ctx.namespace);
        ctx.until("the default service account", || async {
            Ok((ctx.send("GET", &accounts, "", Vec::new()).await?.code == 200).then_some(()))
        })
        .await?;
        Ok(ctx)
    }

    /// Asks for the namespace's end. What is in it ends in the background.
    pub(crate) async fn remove_namespace(&self, name: &str) -> anyhow::Result<()> {
        let answer = self.send("DELETE", &format!("/api/v1/namespaces/{name}"), "", Vec::new()).await?;
        anyhow::ensure!(matches!(answer.code, 200 | 202 | 404 | 409), "delete namespace {name}: {}", answer.text);
        Ok(())
    }

    /// The cluster.
    pub(crate) fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The path of a namespaced resource, `configmaps` or `apps/v1/deployments`, in the test's
    /// namespace.
    pub(crate) fn path(&self, resource: &str) -> String {
        let namespace = &self.namespace;
        match resource.rsplit_once('/') {
            None => format!("/api/v1/namespaces/{namespace}/{resource}"),
            Some((version, plural)) => format!("/apis/{version}/namespaces/{namespace}/{plural}"),
        }
    }

    /// One request as it is; any status is an answer.
    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        content_type: &str,
        body: Vec<u8>,
    ) -> anyhow::Result<Answer> {
        self.send_with(method, path, &[("content-type", content_type)], body).await
    }

    /// As [`Context::send`] with headers; empty values are left out.
    pub(crate) async fn send_with(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> anyhow::Result<Answer> {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers.iter().filter(|(_, value)| !value.is_empty()) {
            request = request.header(*name, *value);
        }
        let response = self.cluster.client.send(request.body(body.into())?).await;
        let response = response.with_context(|| format!("{method} {path}"))?;
        let (head, body) = response.into_parts();
        let bytes = http_body_util::BodyExt::collect(body).await?.to_bytes();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        Ok(Answer { code: head.status.as_u16(), headers: head.headers, text, body })
    }

    /// A request that must succeed.
    async fn must(&self, method: &str, path: &str, content_type: &str, body: Value) -> anyhow::Result<Value> {
        let bytes = if body.is_null() { Vec::new() } else { serde_json::to_vec(&body)? };
        let answer = self.send(method, path, content_type, bytes).await?;
        anyhow::ensure!((200..300).contains(&answer.code), "{method} {path}: {} {}", answer.code, answer.text);
        Ok(answer.body)
    }

    /// Creates an object at the path of its collection.
    pub(crate) async fn create(&self, path: &str, object: Value) -> anyhow::Result<Value> {
        self.must("POST", path, "application/json", object).await
    }

    /// Reads an object or a list.
    pub(crate) async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.must("GET", path, "", Value::Null).await
    }

    /// Replaces an object.
    pub(crate) async fn update(&self, path: &str, object: Value) -> anyhow::Result<Value> {
        self.must("PUT", path, "application/json", object).await
    }

    /// Reads, changes and replaces an object; again when somebody else was faster.
    pub(crate) async fn change(&self, path: &str, change: impl Fn(&mut Value)) -> anyhow::Result<Value> {
        self.until(&format!("a change of {path}"), || async {
            let mut object = self.get(path).await?;
            change(&mut object);
            let answer = self.send("PUT", path, "application/json", serde_json::to_vec(&object)?).await?;
            anyhow::ensure!(matches!(answer.code, 200 | 409), "PUT {path}: {} {}", answer.code, answer.text);
            Ok((answer.code == 200).then_some(answer.body))
        })
        .await
    }

    /// A merge patch.
    pub(crate) async fn merge(&self, path: &str, patch: Value) -> anyhow::Result<Value> {
        self.must("PATCH", path, "application/merge-patch+json", patch).await
    }

    /// A strategic merge patch.
    pub(crate) async fn strategic(&self, path: &str, patch: Value) -> anyhow::Result<Value> {
        self.must("PATCH", path, "application/strategic-merge-patch+json", patch).await
    }

    /// Deletes an object, or a collection.
    pub(crate) async fn delete(&self, path: &str) -> anyhow::Result<Value> {
        self.must("DELETE", path, "", Value::Null).await
    }

    /// Deletes with options.
    pub(crate) async fn delete_with(&self, path: &str, options: Value) -> anyhow::Result<Value> {
        self.must("DELETE", path, "application/json", options).await
    }

    /// A request that must be refused with `code`; gives the `Status`.
    pub(crate) async fn refused(
        &self,
        code: u16,
        method: &str,
        path: &str,
        content_type: &str,
        body: Value,
    ) -> anyhow::Result<Value> {
        let bytes = if body.is_null() { Vec::new() } else { serde_json::to_vec(&body)? };
        let answer = self.send(method, path, content_type, bytes).await?;
        anyhow::ensure!(answer.code == code, "{method} {path}: {} instead of {code}: {}", answer.code, answer.text);
        Ok(answer.body)
    }

    /// Waits until the object at `path` is gone.
    pub(crate) async fn gone(&self, path: &str) -> anyhow::Result<()> {
        self.until(&format!("the end of {path}"), || async {
            Ok((self.send("GET", path, "", Vec::new()).await?.code == 404).then_some(()))
        })
        .await
    }

    /// Waits until the object at `path` is as wanted and gives it.
    pub(crate) async fn until_object(
        &self,
        what: &str,
        path: &str,
        wanted: impl Fn(&Value) -> bool,
    ) -> anyhow::Result<Value> {
        self.until(what, || async {
            let answer = self.send("GET", path, "", Vec::new()).await?;
            Ok(Some(answer.body).filter(|object| answer.code == 200 && wanted(object)))
        })
        .await
    }

    /// Looks until `look` finds something. The error tells what was waited for.
    pub(crate) async fn until<T, F>(&self, what: &str, look: impl Fn() -> F) -> anyhow::Result<T>
    where
        F: Future<Output = anyhow::Result<Option<T>>>,
    {
        let found = tokio::time::timeout(PATIENCE, async {
            loop {
                if let Some(found) = look().await? {
                    return anyhow::Ok(found);
                }
                tokio::time::sleep(POLL).await;
            }
        });
        found.await.with_context(|| format!("{what}: not within {PATIENCE:?}"))?
    }

    /// Opens a watch; `query` begins with what follows `watch=true`.
    pub(crate) async fn watch(&self, path: &str, query: &str) -> anyhow::Result<Watch> {
        let request = Request::get(format!("{path}?watch=true{query}")).body(Vec::new())?;
        let stream = self.cluster.client.request_stream(request).await?;
        Ok(Watch { lines: Box::pin(stream.lines().map_err(Into::into)) })
    }

    /// Runs `kubectl` in the test's namespace and gives what it prints.
    pub(crate) async fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.kubectl_with(arguments, "").await
    }

    /// As [`Context::kubectl`], with standard input.
    pub(crate) async fn kubectl_with(&self, arguments: &[&str], input: &str) -> anyhow::Result<String> {
        use tokio::io::AsyncWriteExt;
        let mut child = self.kubectl_command(arguments).stdin(Stdio::piped()).spawn().context("start kubectl")?;
        let mut stdin = child.stdin.take().context("no standard input")?;
        stdin.write_all(input.as_bytes()).await?;
        drop(stdin);
        let output = child.wait_with_output().await?;
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        if !output.status.success() {
            bail!("kubectl {}: {out}{err}", arguments.join(" "));
        }
        Ok(out.into_owned())
    }

    /// A `kubectl` that is killed when it is dropped.
    pub(crate) fn kubectl_command(&self, arguments: &[&str]) -> tokio::process::Command {
        let mut command = tokio::process::Command::new("kubectl");
        command.arg("--kubeconfig").arg(&self.cluster.kubeconfig).args(["--namespace", &self.namespace]);
        command.args(arguments).env("HOME", self.cluster.kubeconfig.parent().unwrap_or(std::path::Path::new("/")));
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }
}

/// An open watch.
pub(crate) struct Watch {
    lines: futures::stream::BoxStream<'static, anyhow::Result<String>>,
}

impl Watch {
    /// The next event: its type and object.
    pub(crate) async fn next(&mut self) -> anyhow::Result<(String, Value)> {
        let line = tokio::time::timeout(PATIENCE, self.lines.next()).await.context("no event came")?;
        let mut event: Value = serde_json::from_str(&line.context("the watch ended")??)?;
        let object = event["object"].take();
        Ok((event["type"].as_str().unwrap_or_default().to_owned(), object))
    }

    /// The next event, which must be of this type and about this name; gives its object.
    pub(crate) async fn expect(&mut self, kind: &str, name: &str) -> anyhow::Result<Value> {
        let (found, object) = self.next().await?;
        let told = object["metadata"]["name"].as_str().unwrap_or_default();
        anyhow::ensure!(found == kind && told == name, "{kind} {name} expected, {found} came: {object}");
        Ok(object)
    }

    /// Reads on until an event of this type tells an object as wanted. Others may come before: a
    /// controller writes too.
    pub(crate) async fn until(&mut self, kind: &str, wanted: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
        loop {
            let (found, object) = self.next().await?;
            if found == kind && wanted(&object) {
                return Ok(object);
            }
        }
    }

    /// Nothing comes for half a second.
    pub(crate) async fn expect_nothing(&mut self) -> anyhow::Result<()> {
        match tokio::time::timeout(Duration::from_millis(500), self.lines.next()).await {
            Err(_) => Ok(()),
            Ok(line) => bail!("no event expected, {line:?} came"),
        }
    }
}

/// The `metadata.resourceVersion`.
pub(crate) fn version(object: &Value) -> &str {
    object["metadata"]["resourceVersion"].as_str().unwrap_or_default()
}
