//! Service accounts, their tokens, and questions about access.

use serde_json::{Value, json};

use crate::Outcome;
use crate::cluster::IMAGE;
use crate::context::Context;
use crate::lifecycle::find;

/// Where a pod finds its account.
const MOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Runs a pod to its end and gives its log.
async fn log_of(ctx: &Context, pod: Value) -> anyhow::Result<String> {
    let name = pod["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    ctx.create(&ctx.path("pods"), pod).await?;
    let path = format!("{}/{name}", ctx.path("pods"));
    let ended = |pod: &Value| matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    let pod = ctx.until_object("the pod's end", &path, ended).await?;
    let log = ctx.send("GET", &format!("{path}/log"), "", Vec::new()).await?.text;
    anyhow::ensure!(pod["status"]["phase"] == "Succeeded", "the pod failed: {log} {}", pod["status"]);
    Ok(log)
}

fn shell(name: &str, script: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"restartPolicy": "Never", "containers": [
        {"name": "box", "image": IMAGE, "command": ["sh", "-c", script]}
    ]}})
}

pub(crate) async fn mounted_token(ctx: Context) -> Outcome {
    let script = format!("cat {MOUNT}/token; echo; cat {MOUNT}/namespace; echo; cat {MOUNT}/ca.crt");
    let log = log_of(&ctx, shell("token", &script)).await?;
    let (token, rest) = log.split_once('\n').unwrap_or_default();
    let (namespace, certificate) = rest.split_once('\n').unwrap_or_default();
    anyhow::ensure!(namespace == ctx.namespace, "another namespace: {namespace}");
    let root = ctx.get(&format!("{}/kube-root-ca.crt", ctx.path("configmaps"))).await?;
    let known = root["data"]["ca.crt"].as_str().unwrap_or_default().trim();
    anyhow::ensure!(certificate.trim() == known, "another authority: {certificate}");
    reviewed(&ctx, token, "default").await
}

pub(crate) async fn projected_token(ctx: Context) -> Outcome {
    let mut pod = shell("projected", "cat /tokens/token; echo; stat -c %a /tokens/..data/token");
    pod["spec"]["volumes"] = json!([{"name": "tokens", "projected": {"defaultMode": 0o440, "sources": [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 7_200}}
    ]}}]);
    pod["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "tokens", "mountPath": "/tokens"}]);
    let log = log_of(&ctx, pod).await?;
    let (token, mode) = log.split_once('\n').unwrap_or_default();
    anyhow::ensure!(mode.trim() == "440", "mode {mode}");
    reviewed(&ctx, token, "default").await
}

/// A TokenReview says whose token it is.
async fn reviewed(ctx: &Context, token: &str, account: &str) -> Outcome {
    let review = json!({"spec": {"token": token}});
    let review = ctx.create("/apis/authentication.k8s.io/v1/tokenreviews", review).await?;
    let status = &review["status"];
    anyhow::ensure!(status["authenticated"] == true && status["error"].is_null(), "not authenticated: {status}");
    let name = format!("system:serviceaccount:{}:{account}", ctx.namespace);
    anyhow::ensure!(status["user"]["username"] == *name, "another user: {status}");
    Ok(())
}

pub(crate) async fn token_review(ctx: Context) -> Outcome {
    let accounts = ctx.path("serviceaccounts");
    ctx.create(&accounts, json!({"metadata": {"name": "reviewed"}})).await?;
    let request = json!({"spec": {"expirationSeconds": 3_600}});
    let token = ctx.create(&format!("{accounts}/reviewed/token"), request).await?;
    let text = token["status"]["token"].as_str().unwrap_or_default();
    anyhow::ensure!(!text.is_empty(), "no token: {token}");
    reviewed(&ctx, text, "reviewed").await
}

pub(crate) async fn automount(ctx: Context) -> Outcome {
    for account in [None, Some(true), Some(false)] {
        let name = format!("mount-{}", account.map_or("default".to_owned(), |mount| mount.to_string()));
        let mut object = json!({"metadata": {"name": name}});
        if let Some(mount) = account {
            object["automountServiceAccountToken"] = json!(mount);
        }
        ctx.create(&ctx.path("serviceaccounts"), object).await?;
        for pod in [None, Some(true), Some(false)] {
            let mut object = shell("mount", "true");
            object["metadata"] = json!({"generateName": "mount-"});
            object["spec"]["serviceAccountName"] = json!(name);
            if let Some(mount) = pod {
                object["spec"]["automountServiceAccountToken"] = json!(mount);
            }
            let created = ctx.create(&ctx.path("pods"), object).await?;
            let mounts = created["spec"]["containers"][0]["volumeMounts"].as_array().cloned().unwrap_or_default();
            let mounted = mounts.iter().any(|mount| mount["mountPath"] == MOUNT);
            let wanted = pod.or(account).unwrap_or(true);
            anyhow::ensure!(mounted == wanted, "account {account:?}, pod {pod:?}: mounted is {mounted}");
        }
    }
    Ok(())
}

pub(crate) async fn root_certificate(ctx: Context) -> Outcome {
    let path = format!("{}/kube-root-ca.crt", ctx.path("configmaps"));
    let first = ctx.until_object("the root certificate", &path, |map| map["data"]["ca.crt"].is_string()).await?;
    ctx.delete(&path).await?;
    let again = |map: &Value| map["metadata"]["uid"] != first["metadata"]["uid"] && map["data"] == first["data"];
    let mut again = ctx.until_object("it to come back", &path, again).await?;
    again["data"] = json!({"ca.crt": ""});
    ctx.update(&path, again).await?;
    ctx.until_object("it to be set right", &path, |map| map["data"] == first["data"]).await.map(drop)
}

pub(crate) async fn account_life(ctx: Context) -> Outcome {
    let path = ctx.path("serviceaccounts");
    let mut watch = ctx.watch(&path, "&labelSelector=test-serviceaccount-static%3Dtrue").await?;
    let labels = json!({"test-serviceaccount-static": "true"});
    ctx.create(&path, json!({"metadata": {"name": "testserviceaccount", "labels": labels}})).await?;
    watch.expect("ADDED", "testserviceaccount").await?;
    let one = format!("{path}/testserviceaccount");
    ctx.strategic(&one, json!({"automountServiceAccountToken": false})).await?;
    let all = ctx.get("/api/v1/serviceaccounts?labelSelector=test-serviceaccount-static%3Dtrue").await?;
    let mine = find(&all["items"], "automountServiceAccountToken", "").or_else(|_| {
        let items = all["items"].as_array().into_iter().flatten();
        let mut mine = items.filter(|one| one["metadata"]["namespace"] == ctx.namespace);
        mine.next().ok_or_else(|| anyhow::anyhow!("not listed: {all}"))
    })?;
    anyhow::ensure!(mine["automountServiceAccountToken"] == false, "not patched: {mine}");
    ctx.delete(&format!("{path}?labelSelector=test-serviceaccount-static%3Dtrue")).await?;
    loop {
        if watch.next().await?.0 == "DELETED" {
            return Ok(());
        }
    }
}

pub(crate) async fn account_update(ctx: Context) -> Outcome {
    let path = ctx.path("serviceaccounts");
    ctx.create(&path, json!({"metadata": {"name": "e2e"}})).await?;
    let mut now = ctx.get(&format!("{path}/e2e")).await?;
    now["automountServiceAccountToken"] = json!(true);
    ctx.update(&format!("{path}/e2e"), now).await?;
    let now = ctx.get(&format!("{path}/e2e")).await?;
    anyhow::ensure!(now["automountServiceAccountToken"] == true, "not updated: {now}");
    Ok(())
}

pub(crate) async fn issuer(ctx: Context) -> Outcome {
    let configuration = ctx.get("/.well-known/openid-configuration").await?;
    let keys = ctx.get("/openid/v1/jwks").await?;
    let accounts = ctx.path("serviceaccounts");
    let token = ctx
        .create(&format!("{accounts}/default/token"), json!({"spec": {"audiences": ["oidc-discovery-test"]}}))
        .await?;
    let token = token["status"]["token"].as_str().unwrap_or_default();
    let part = |index: usize| -> anyhow::Result<Value> {
        let text = token.split('.').nth(index).unwrap_or_default();
        let bytes = base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, text)?;
        Ok(serde_json::from_slice(&bytes)?)
    };
    let (header, claims) = (part(0)?, part(1)?);
    anyhow::ensure!(claims["iss"] == configuration["issuer"], "two issuers: {claims} {configuration}");
    anyhow::ensure!(claims["aud"] == json!(["oidc-discovery-test"]), "another audience: {claims}");
    let key = find(&keys["keys"], "kid", header["kid"].as_str().unwrap_or_default())?;
    anyhow::ensure!(key["alg"] == header["alg"] && key["use"] == "sig", "another key: {key} {header}");
    let algorithms = configuration["id_token_signing_alg_values_supported"].as_array().cloned().unwrap_or_default();
    anyhow::ensure!(algorithms.contains(&header["alg"]), "an algorithm that is not told: {configuration}");
    // What a pod's account may read of it: both.
    let user = format!("system:serviceaccount:{}:default", ctx.namespace);
    let headers = [
        ("impersonate-user", user.as_str()),
        ("impersonate-group", "system:serviceaccounts"),
        ("impersonate-group", "system:authenticated"),
    ];
    for (path, known) in [("/.well-known/openid-configuration", &configuration), ("/openid/v1/jwks", &keys)] {
        let answer = ctx.send_with("GET", path, &headers, Vec::new()).await?;
        anyhow::ensure!(answer.code == 200 && answer.body == *known, "{path}: {} {}", answer.code, answer.text);
    }
    Ok(())
}

pub(crate) async fn subject_reviews(ctx: Context) -> Outcome {
    let account = "e2e";
    ctx.create(&ctx.path("serviceaccounts"), json!({"metadata": {"name": account}})).await?;
    let user = format!("system:serviceaccount:{}:{account}", ctx.namespace);
    let attributes = json!({"namespace": ctx.namespace, "verb": "get", "resource": "configmaps", "version": "v1"});
    let group = "/apis/authorization.k8s.io/v1";
    let asked = |user: &str| json!({"spec": {"user": user, "resourceAttributes": attributes}});
    let role = json!({"metadata": {"name": "reader"}, "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}]});

    for allowed in [false, true] {
        if allowed {
            ctx.create(&ctx.path("rbac.authorization.k8s.io/v1/roles"), role.clone()).await?;
            let binding = json!({"metadata": {"name": "reader"},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"},
                "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": ctx.namespace}]});
            ctx.create(&ctx.path("rbac.authorization.k8s.io/v1/rolebindings"), binding).await?;
        }
        let review = ctx.create(&format!("{group}/subjectaccessreviews"), asked(&user)).await?;
        anyhow::ensure!(review["status"]["allowed"] == allowed, "subject: {review}");
        let local = ctx.path("authorization.k8s.io/v1/localsubjectaccessreviews");
        let review = ctx.create(&local, asked(&user)).await?;
        anyhow::ensure!(review["status"]["allowed"] == allowed, "local: {review}");
        let body = serde_json::to_vec(&json!({"spec": {"resourceAttributes": attributes}}))?;
        let headers = [
            ("content-type", "application/json"),
            ("impersonate-user", user.as_str()),
            ("impersonate-group", "system:authenticated"),
        ];
        let own = format!("{group}/selfsubjectaccessreviews");
        let own = ctx.send_with("POST", &own, &headers, body).await?.body;
        anyhow::ensure!(own["status"]["allowed"] == allowed, "self: {own}");
    }
    Ok(())
}
