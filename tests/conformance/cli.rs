//! What the real `kubectl` does. Where the machine has none, each test says so.

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

use crate::Outcome;
use crate::cluster::IMAGE;
use crate::context::Context;

/// Ends the test where there is no `kubectl`.
macro_rules! needs_kubectl {
    ($ctx:expr) => {
        if !$ctx.cluster().kubectl {
            println!("     kubectl is missing: this was not tested");
            return Ok(());
        }
    };
}

fn says(text: &str, wanted: &[&str]) -> Outcome {
    for part in wanted {
        anyhow::ensure!(text.contains(part), "{part:?} is missing in:\n{text}");
    }
    Ok(())
}

fn controller(name: &str, replicas: u32) -> String {
    json!({
        "apiVersion": "v1", "kind": "ReplicationController", "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"replicas": replicas, "selector": {"app": name}, "template": {
            "metadata": {"labels": {"app": name}},
            "spec": {"terminationGracePeriodSeconds": 0, "containers": [
                {"name": name, "image": IMAGE, "command": ["sleep", "1000"], "ports": [{"name": "port", "containerPort": 6379}]}
            ]},
        }},
    })
    .to_string()
}

fn pod(name: &str, script: &str) -> String {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"name": name}},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [
            {"name": name, "image": IMAGE, "command": ["sh", "-c", script]}
        ]},
    })
    .to_string()
}

async fn apply(ctx: &Context, manifest: &str) -> Outcome {
    ctx.kubectl_with(&["create", "-f", "-"], manifest).await.map(drop)
}

async fn ready(ctx: &Context, name: &str) -> Outcome {
    ctx.kubectl(&["wait", "--for=condition=Ready", &format!("pod/{name}"), "--timeout=60s"]).await.map(drop)
}

/// Waits until so many pods with the label run and gives their names.
async fn running(ctx: &Context, app: &str, wanted: usize) -> anyhow::Result<Vec<String>> {
    let path = format!("{}?labelSelector=app%3D{app}", ctx.path("pods"));
    let all_run = |list: &Value| {
        let pods = list["items"].as_array().cloned().unwrap_or_default();
        pods.len() == wanted && pods.iter().all(|pod| pod["status"]["phase"] == "Running")
    };
    let list = ctx.until_object(&format!("{wanted} running pods of {app}"), &path, all_run).await?;
    let names = list["items"].as_array().into_iter().flatten();
    Ok(names.map(|pod| pod["metadata"]["name"].as_str().unwrap_or_default().to_owned()).collect())
}

pub(crate) async fn api_versions(ctx: Context) -> Outcome {
    needs_kubectl!(ctx);
    let versions = ctx.kubectl(&["api-versions"]).await?;
    anyhow::ensure!(versions.lines().any(|line| line == "v1"), "no v1 in {versions}");
    Ok(())
}

pub(crate) async fn cluster_info(ctx: Context) -> Outcome {
    needs_kubectl!(ctx);
    says(&ctx.kubectl(&["cluster-info"]).await?, &["Kubernetes control plane", "is running at"])
}

pub(crate) async fn version(ctx: Context) -> Outcome {
    needs_kubectl!(ctx);
    let text = ctx.kubectl(&["version", "-o", "json"]).await?;
    let version: Value = serde_json::from_str(&text)?;
    for side in ["clientVersion", "serverVersion"] {
        for field in ["major", "minor", "gitVersion", "gitCommit", "buildDate", "goVersion", "compiler", "platform"] {
            anyhow::ensure!(
                version[side][field].as_str().is_some_and(|text| !text.is_empty()),
                "{side}.{field} in {text}"
            );
        }
    }
    Ok(())
}

pub(crate) async fn describe(ctx: Context) -> Outcome {
    needs_kubectl!(ctx);
    apply(&ctx, &controller("agnhost-primary", 1)).await?;
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "agnhost-primary", "labels": {"app": "agnhost-primary"}},
        "spec": {"ports": [{"port": 6379, "targetPort": "port"}], "selector": {"app": "agnhost-primary"}}});
    apply(&ctx, &service.to_string()).await?;
    let pods = running(&ctx, "agnhost-primary", 1).await?;
    let namespace = ctx.namespace.clone();
    says(
        &ctx.kubectl(&["describe", "pod", &pods[0]]).await?,
        &[
            "Name:",
            "Namespace:",
            &namespace,
            "Labels:",
            "app=agnhost-primary",
            "Status:",
            "Running",
            "IP:",
            "Controlled By:",
            "ReplicationController/agnhost-primary",
            "Image:",
            IMAGE,
            "State:",
            "QoS Class:",
            "BestEffort",
        ],
    )?;
    says(
        &ctx.kubectl(&["describe", "rc", "agnhost-primary"]).await?,
        &[
            "Name:",
            "agnhost-primary",
            "Selector:",
            "app=agnhost-primary",
            "Replicas:",
            "1 current",
            "1 desired",
            "Pods Status:",
            "1 Running",
            "Pod Template:",
            "Image:",
            IMAGE,
            "Events:",
        ],
    )?;
    says(
        &ctx.kubectl(&["describe", "service", "agnhost-primary"]).await?,
        &[
            "Name:",
            "Labels:",
            "Selector:",
            "Type:",
            "ClusterIP",
            "IP:",
            "Port:",
            "6379/TCP",
            "Endpoints:",
            "Session Affinity:",
        ],
    )?;
    let node = ctx.get("/api/v1/nodes").await?["items"][0]["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    says(
        &ctx.kubectl(&["describe", "node", &node]).await?,
        &[
            "Name:",
            "Labels:",
            "Annotations:",
            "CreationTimestamp:",
            "Conditions:",
            "Type",
            "Status",
            "LastHeartbeatTime",
            "Addresses:",
            "Capacity:",
            "Kubelet Version:",
            "Pods:",
        ],
    )?;
    says(&ctx.kubectl(&["describe", "namespace", &namespace]).await?, &["Name:", "Labels:", "Status:", "Active"])
}

pub(crate) async fn diff(ctx: Context) -> Outcome {
    needs_kubectl!(ctx);
    let deployment = |image: &str| {
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "httpd"}, "spec": {
            "replicas": 1, "selector": {"matchLabels": {"app": "httpd"}},
            "template": {"metadata": {"labels": {"app": "httpd"}}, "spec": {"containers": [{"name": "httpd", "image": image}]}}}})
        .to_string()
    };
    apply(&ctx, &deployment(IMAGE)).await?;
    // A difference is exit code 1: kubectl's way, so the error carries the text.
    let differs = ctx.kubectl_with(&["diff", "-f", "-"], &deployment("conformance.local/other:1")).await;
    let Err(text) = differs else { anyhow::bail!("no difference found") };
    says(&text.to_string(), &[&format!("-      - image: {IMAGE}"), "+      - image: conformance.local/other:1"])
}

pub(crate) async fn expose(ctx: Context) -> Outcome {
    needs_kubectl!(ctx);
    apply(&ctx, &controller("agnhost-primary", 1)).await?;
    running(&ctx, "agnhost-primary", 1).await?;
    ctx.kubectl(&["expose", "rc", "agnhost-primary", "--name=rm2", "--port=1234", "--target-port=6379"]).await?;
    ctx.kubectl(&["expose", "service", "rm2", "--name=rm3", "--port=2345", "--target-port=6379"]).await?;
    for (name, port) in [("rm2", 1234), ("rm3", 2345)] {
        let service = ctx.get(&format!("{}/{name}", ctx.path("services"))).await?;
        let told = &service["spec"]["ports"][0];
        anyhow::ensure!(told["port"] == port && told["targetPort"] == 6379, "the port of {service}");
        let endpoints = |object: &Value| object["subsets"][0]["ports"][0]["port"] == 6379;
        ctx.until_object("its endpoints", &format!("{}/{name}", ctx.path("endpoints")), endpoints).await?;
    }
    Ok(())
}

pub(crate) async fn label(ctx: Context) -> Outcome {
    needs_kubectl!(ctx);
    apply(&ctx, &pod("pause", "sleep 1000")).await?;
    ready(&ctx, "pause").await?;
    ctx.kubectl(&["label", "pods", "pause", "testing-label=testing-label-value"]).await?;
    says(&ctx.kubectl(&["get", "pod", "pause", "-L", "testing-label"]).await?, &["testing-label-value"])?;
    ctx.kubectl(&["label", "pods", "pause", "testing-label-"]).await?;
    let without = ctx.kubectl(&["get", "pod", "pause", "-L", "testing-label"]).await?;
    anyhow::ensure!(!without.contains("testing-label-value"), "the label is still there: {without}");
    Ok(())
}

pub(crate) async fn patch(ctx: Context) -> Outcome {
    needs_kubectl!(ctx);
    apply(&ctx, &controller("agnhost-primary", 1)).await?;
    for name in running(&ctx, "agnhost-primary", 1).await? {
        ctx.kubectl(&["patch", "pod", &name, "-p", r#"{"metadata":{"annotations":{"x":"y"}}}"#]).await?;
        let pod = ctx.get(&format!("{}/{name}", ctx.path("pods"))).await?;
        anyhow::ensure!(pod["metadata"]["annotations"]["x"] == "y", "not annotated: {pod}");
    }
    Ok(())
}

pub(crate) async fn replace(ctx: Context) -> Outcome {
    needs_kubectl!(ctx);
    let image = format!("--image={IMAGE}");
    ctx.kubectl(&["run", "httpd", &image, "--labels=run=httpd", "--", "sleep", "1000"]).await?;
    ready(&ctx, "httpd").await?;
    let manifest = ctx.kubectl(&["get", "pod", "httpd", "-o", "json"]).await?;
    ctx.kubectl_with(&["replace", "-f", "-"], &manifest.replace(IMAGE, "conformance.local/other:1")).await?;
    let pod = ctx.get(&format!("{}/httpd", ctx.path("pods"))).await?;
    anyhow::ensure!(pod["spec"]["containers"][0]["image"] == "conformance.local/other:1", "not replaced: {pod}");
    Ok(())
}

pub(crate) async fn run_never(ctx: Context) -> Outcome {
    needs_kubectl!(ctx);
    ctx.kubectl(&["run", "httpd", "--restart=Never", &format!("--image={IMAGE}")]).await?;
    let pod = ctx.get(&format!("{}/httpd", ctx.path("pods"))).await?;
    let containers = pod["spec"]["containers"].as_array().cloned().unwrap_or_default();
    anyhow::ensure!(containers.len() == 1 && containers[0]["image"] == IMAGE, "the containers of {pod}");
    anyhow::ensure!(pod["spec"]["restartPolicy"] == "Never", "the restart policy of {pod}");
    Ok(())
}

pub(crate) async fn dry_run(ctx: Context) -> Outcome {
    needs_kubectl!(ctx);
    ctx.kubectl(&["run", "httpd", &format!("--image={IMAGE}"), "--labels=run=httpd", "--", "sleep", "1000"]).await?;
    let patch = r#"{"spec":{"containers":[{"name":"httpd","image":"conformance.local/other:1"}]}}"#;
    let would = ctx.kubectl(&["patch", "pod", "httpd", "-p", patch, "--dry-run=server", "-o", "json"]).await?;
    says(&would, &["conformance.local/other:1"])?;
    let pod = ctx.get(&format!("{}/httpd", ctx.path("pods"))).await?;
    anyhow::ensure!(pod["spec"]["containers"][0]["image"] == IMAGE, "the dry run was wet: {pod}");
    Ok(())
}

pub(crate) async fn create_controller(ctx: Context) -> Outcome {
    needs_kubectl!(ctx);
    apply(&ctx, &controller("update-demo", 2)).await?;
    running(&ctx, "update-demo", 2).await?;
    ctx.kubectl(&["delete", "--grace-period=0", "--force", "rc", "update-demo"]).await?;
    running(&ctx, "update-demo", 0).await.map(drop)
}

pub(crate) async fn scale_controller(ctx: Context) -> Outcome {
    needs_kubectl!(ctx);
    apply(&ctx, &controller("update-demo", 2)).await?;
    running(&ctx, "update-demo", 2).await?;
    for replicas in [1, 2] {
        ctx.kubectl(&["scale", "rc", "update-demo", &format!("--replicas={replicas}"), "--timeout=60s"]).await?;
        running(&ctx, "update-demo", replicas).await?;
    }
    Ok(())
}

pub(crate) async fn logs(ctx: Context) -> Outcome {
    needs_kubectl!(ctx);
    apply(&ctx, &pod("logs-generator", "for i in $(seq 1 20); do echo line $i; sleep 0.05; done; sleep 1000")).await?;
    ready(&ctx, "logs-generator").await?;
    ctx.until("the last line", || async {
        Ok(ctx.kubectl(&["logs", "logs-generator"]).await?.contains("line 20\n").then_some(()))
    })
    .await?;
    let tail = ctx.kubectl(&["logs", "logs-generator", "--tail=1"]).await?;
    anyhow::ensure!(tail == "line 20\n", "one line expected: {tail}");
    let bytes = ctx.kubectl(&["logs", "logs-generator", "--limit-bytes=1"]).await?;
    anyhow::ensure!(bytes == "l", "one byte expected: {bytes}");
    let stamped = ctx.kubectl(&["logs", "logs-generator", "--tail=1", "--timestamps"]).await?;
    let (time, text) = stamped.split_once(' ').unwrap_or_default();
    anyhow::ensure!(text == "line 20\n" && time.starts_with("20") && time.contains('T'), "a time expected: {stamped}");
    let ages = ctx.kubectl(&["logs", "logs-generator", "--since=24h"]).await?.lines().count();
    anyhow::ensure!(ages == 20, "twenty lines of the last day expected, {ages} came");
    tokio::time::sleep(std::time::Duration::from_millis(2_500)).await; // lines must age
    let recent = ctx.kubectl(&["logs", "logs-generator", "--since=1s"]).await?;
    anyhow::ensure!(recent.is_empty(), "nothing of the last second expected: {recent}");
    Ok(())
}

/// Asks a proxy for `/api/` over any stream.
async fn ask<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>(mut stream: S) -> Outcome {
    stream.write_all(b"GET /api/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    says(&answer, &["200 OK", "APIVersions", "v1"])
}

/// Starts `kubectl proxy` and gives it with the line it prints once it listens.
async fn proxy(ctx: &Context, argument: &str) -> anyhow::Result<(tokio::process::Child, String)> {
    let mut child = ctx.kubectl_command(&["proxy", argument, "--disable-filter"]).spawn()?;
    let stdout = child.stdout.take().ok_or_else(|| anyhow::anyhow!("no output"))?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line).await?;
    Ok((child, line))
}

pub(crate) async fn proxy_port(ctx: Context) -> Outcome {
    needs_kubectl!(ctx);
    let (_child, line) = proxy(&ctx, "--port=0").await?;
    let address = line.trim().rsplit(' ').next().unwrap_or_default();
    ask(tokio::net::TcpStream::connect(address).await?).await
}

pub(crate) async fn proxy_socket(ctx: Context) -> Outcome {
    needs_kubectl!(ctx);
    let folder = tempfile::tempdir()?;
    let socket = folder.path().join("test");
    let (_child, line) = proxy(&ctx, &format!("--unix-socket={}", socket.display())).await?;
    says(&line, &["Starting to serve on"])?;
    ask(tokio::net::UnixStream::connect(&socket).await?).await
}

pub(crate) async fn guestbook(ctx: Context) -> Outcome {
    needs_kubectl!(ctx);
    // A primary that keeps the entries, a frontend that passes requests on to it by name.
    let server = |name: &str, replicas: u32, script: &str| {
        json!([
            {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": {
                "replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": {
                    "metadata": {"labels": {"app": name}},
                    "spec": {"terminationGracePeriodSeconds": 0, "containers": [{
                        "name": "box", "image": IMAGE, "command": ["sh", "-c", script],
                        "ports": [{"containerPort": 80}], "readinessProbe": {"tcpSocket": {"port": 80}, "periodSeconds": 1},
                    }]},
                }}},
            {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {
                "selector": {"app": name}, "ports": [{"port": 80}]}},
        ])
    };
    let script = |cgi: &str| {
        format!(
            "mkdir -p /www/cgi-bin; printf '%s\\n' '#!/bin/sh' 'echo' {cgi} >/www/cgi-bin/guestbook; \
                 chmod +x /www/cgi-bin/guestbook; exec httpd -f -p 80 -h /www"
        )
    };
    let primary = server(
        "agnhost-primary",
        1,
        &script("'[ -z \"$QUERY_STRING\" ] || echo \"$QUERY_STRING\" >>/entries; cat /entries'"),
    );
    let frontend =
        server("frontend", 3, &script("'wget -qO- \"http://agnhost-primary/cgi-bin/guestbook?$QUERY_STRING\"'"));
    let items: Vec<Value> =
        [primary, frontend].into_iter().flat_map(|list| list.as_array().cloned().unwrap_or_default()).collect();
    let manifest = json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string();
    apply(&ctx, &manifest).await?;
    for name in ["agnhost-primary", "frontend"] {
        ctx.kubectl(&["rollout", "status", &format!("deployment/{name}"), "--timeout=60s"]).await?;
    }
    let path = format!("{}/frontend/proxy/cgi-bin/guestbook", ctx.path("services"));
    ctx.until("an entry written through the frontend", || async {
        Ok((ctx.send("GET", &format!("{path}?TestEntry"), "", Vec::new()).await?.code == 200).then_some(()))
    })
    .await?;
    let entries = ctx.send("GET", &path, "", Vec::new()).await?.text;
    says(&entries, &["TestEntry"])?;
    ctx.kubectl_with(&["delete", "--grace-period=0", "--force", "-f", "-"], &manifest).await?;
    ctx.until_object("no pods", &ctx.path("pods"), |list| list["items"] == json!([])).await.map(drop)
}
