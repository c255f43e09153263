//! Lists in chunks, tables, watches.

use serde_json::{Value, json};

use crate::Outcome;
use crate::context::{Context, Watch, version};

const TEMPLATES: usize = 40;

fn template(index: usize) -> Value {
    json!({"metadata": {"name": format!("template-{index:04}")}, "template": {"spec": {"containers": [
        {"name": "test", "image": "test2"}
    ]}}})
}

pub(crate) async fn chunks(ctx: Context) -> Outcome {
    let path = ctx.path("podtemplates");
    let creates = (0..TEMPLATES).map(|index| ctx.create(&path, template(index)));
    futures::future::try_join_all(creates).await?;
    let whole = ctx.get(&path).await?;
    let whole = whole["items"].as_array().cloned().unwrap_or_default();
    anyhow::ensure!(whole.len() == TEMPLATES, "{} of {TEMPLATES} listed", whole.len());
    for limit in [7, 8, TEMPLATES, 100] {
        let (mut seen, mut next, mut listed_at): (Vec<Value>, _, _) = (Vec::new(), String::new(), String::new());
        loop {
            let page = ctx.get(&format!("{path}?limit={limit}&continue={next}")).await?;
            let items = page["items"].as_array().cloned().unwrap_or_default();
            anyhow::ensure!(items.len() <= limit, "{} items with a limit of {limit}", items.len());
            anyhow::ensure!(listed_at.is_empty() || listed_at == version(&page), "the pages are of two versions");
            listed_at = version(&page).to_owned();
            seen.extend(items);
            next = page["metadata"]["continue"].as_str().unwrap_or_default().to_owned();
            let left = page["metadata"]["remainingItemCount"].as_u64().unwrap_or(0) as usize;
            anyhow::ensure!(left == TEMPLATES - seen.len(), "{left} remain after {} of {TEMPLATES}", seen.len());
            if next.is_empty() {
                break;
            }
        }
        anyhow::ensure!(seen == whole, "pages of {limit} differ from the whole list");
    }
    Ok(())
}

/// The pages of a list whose version was compacted go on with what there is now.
pub(crate) async fn compacted(ctx: Context) -> Outcome {
    const LIMIT: usize = TEMPLATES / 3;
    let path = ctx.path("podtemplates");
    let creates = (0..TEMPLATES).map(|index| ctx.create(&path, template(index)));
    futures::future::try_join_all(creates).await?;
    let first = ctx.get(&format!("{path}?limit={LIMIT}")).await?;
    let token = first["metadata"]["continue"].as_str().unwrap_or_default();
    anyhow::ensure!(!token.is_empty(), "no token to go on with");
    let next = format!("{path}?limit={LIMIT}&continue={token}");
    let status = ctx
        .until("the token's end", || async {
            let answer = ctx.send("GET", &next, "", Vec::new()).await?;
            anyhow::ensure!(matches!(answer.code, 200 | 410), "{} {}", answer.code, answer.text);
            Ok((answer.code == 410).then_some(answer.body))
        })
        .await?;
    anyhow::ensure!(status["reason"] == "Expired", "reason Expired expected: {status}");
    let fresh = status["metadata"]["continue"].as_str().unwrap_or_default();
    anyhow::ensure!(!fresh.is_empty() && fresh != token, "a token that goes on at another version expected: {status}");

    let names = |page: &Value| -> Vec<String> {
        let items = page["items"].as_array().map(Vec::as_slice).unwrap_or_default();
        items.iter().map(|item| item["metadata"]["name"].as_str().unwrap_or_default().to_owned()).collect()
    };
    let expected = |from: usize, to: usize| (from..to).map(|index| format!("template-{index:04}")).collect::<Vec<_>>();
    let second = ctx.get(&format!("{path}?limit={LIMIT}&continue={fresh}")).await?;
    anyhow::ensure!(version(&second) != version(&first), "the version of the first page is gone: {second}");
    anyhow::ensure!(names(&second) == expected(LIMIT, 2 * LIMIT), "not the second page: {:?}", names(&second));
    let token = second["metadata"]["continue"].as_str().unwrap_or_default();
    let rest = ctx.get(&format!("{path}?continue={token}")).await?;
    anyhow::ensure!(version(&rest) == version(&second), "the pages after are of one version");
    anyhow::ensure!(names(&rest) == expected(2 * LIMIT, TEMPLATES), "not the rest: {:?}", names(&rest));
    anyhow::ensure!(rest["metadata"]["continue"].is_null(), "nothing remains: {rest}");
    Ok(())
}

pub(crate) async fn no_table(ctx: Context) -> Outcome {
    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": {
        "resourceAttributes": {"namespace": ctx.namespace, "verb": "list", "resource": "pods"}
    }});
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let headers = [("content-type", "application/json"), ("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let answer = ctx.send_with("POST", path, &headers, serde_json::to_vec(&review)?).await?;
    anyhow::ensure!(answer.code == 406, "{} instead of 406: {}", answer.code, answer.text);
    Ok(())
}

fn labelled(name: &str, label: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"watch-this-configmap": label}}})
}

async fn watch(ctx: &Context, labels: &str, from: &str) -> anyhow::Result<Watch> {
    let query = format!("&labelSelector=watch-this-configmap+in+({labels})&resourceVersion={from}");
    ctx.watch(&ctx.path("configmaps"), &query).await
}

async fn mutate(ctx: &Context, name: &str, value: u32) -> anyhow::Result<Value> {
    let patch = json!({"data": {"mutation": value.to_string()}});
    ctx.merge(&format!("{}/{name}", ctx.path("configmaps")), patch).await
}

pub(crate) async fn observe(ctx: Context) -> Outcome {
    let path = ctx.path("configmaps");
    let from = version(&ctx.get(&path).await?).to_owned();
    let mut a = watch(&ctx, "a", &from).await?;
    let mut b = watch(&ctx, "b", &from).await?;
    let mut both = watch(&ctx, "a,b", &from).await?;
    ctx.create(&path, labelled("one", "a")).await?;
    mutate(&ctx, "one", 1).await?;
    mutate(&ctx, "one", 2).await?;
    ctx.delete(&format!("{path}/one")).await?;
    for watch in [&mut a, &mut both] {
        watch.expect("ADDED", "one").await?;
        for value in ["1", "2"] {
            let object = watch.expect("MODIFIED", "one").await?;
            anyhow::ensure!(object["data"]["mutation"] == value, "mutation {value} expected: {object}");
        }
        watch.expect("DELETED", "one").await?;
    }
    b.expect_nothing().await?;
    ctx.create(&path, labelled("two", "b")).await?;
    ctx.delete(&format!("{path}/two")).await?;
    for watch in [&mut b, &mut both] {
        watch.expect("ADDED", "two").await?;
        watch.expect("DELETED", "two").await?;
    }
    a.expect_nothing().await
}

pub(crate) async fn from_version(ctx: Context) -> Outcome {
    let path = ctx.path("configmaps");
    ctx.create(&path, labelled("from", "version")).await?;
    let first = mutate(&ctx, "from", 1).await?;
    mutate(&ctx, "from", 2).await?;
    ctx.delete(&format!("{path}/from")).await?;
    let mut watch = watch(&ctx, "version", version(&first)).await?;
    let object = watch.expect("MODIFIED", "from").await?;
    anyhow::ensure!(object["data"]["mutation"] == "2", "the second mutation expected: {object}");
    watch.expect("DELETED", "from").await?;
    Ok(())
}

pub(crate) async fn restart(ctx: Context) -> Outcome {
    let path = ctx.path("configmaps");
    let from = version(&ctx.get(&path).await?).to_owned();
    let mut first = watch(&ctx, "restart", &from).await?;
    ctx.create(&path, labelled("again", "restart")).await?;
    mutate(&ctx, "again", 1).await?;
    first.expect("ADDED", "again").await?;
    let last = first.expect("MODIFIED", "again").await?;
    drop(first);
    mutate(&ctx, "again", 2).await?;
    ctx.delete(&format!("{path}/again")).await?;
    let mut second = watch(&ctx, "restart", version(&last)).await?;
    let object = second.expect("MODIFIED", "again").await?;
    anyhow::ensure!(object["data"]["mutation"] == "2", "the second mutation expected: {object}");
    second.expect("DELETED", "again").await?;
    Ok(())
}

pub(crate) async fn selector(ctx: Context) -> Outcome {
    let path = ctx.path("configmaps");
    let object_path = format!("{path}/moving");
    let from = version(&ctx.get(&path).await?).to_owned();
    let mut watch = watch(&ctx, "in", &from).await?;
    ctx.create(&path, labelled("moving", "in")).await?;
    mutate(&ctx, "moving", 1).await?;
    let label = |label: &str| json!({"metadata": {"labels": {"watch-this-configmap": label}}});
    ctx.merge(&object_path, label("out")).await?;
    watch.expect("ADDED", "moving").await?;
    watch.expect("MODIFIED", "moving").await?;
    watch.expect("DELETED", "moving").await?;
    mutate(&ctx, "moving", 2).await?;
    watch.expect_nothing().await?;
    ctx.merge(&object_path, label("in")).await?;
    mutate(&ctx, "moving", 3).await?;
    ctx.delete(&object_path).await?;
    let back = watch.expect("ADDED", "moving").await?;
    anyhow::ensure!(back["data"]["mutation"] == "2", "it comes back as it is: {back}");
    watch.expect("MODIFIED", "moving").await?;
    watch.expect("DELETED", "moving").await?;
    Ok(())
}

pub(crate) async fn same_order(ctx: Context) -> Outcome {
    const CHANGES: usize = 40;
    let path = ctx.path("configmaps");
    let from = version(&ctx.get(&path).await?).to_owned();
    let mut first = ctx.watch(&path, &format!("&resourceVersion={from}")).await?;
    let writes = async {
        for index in 0..CHANGES {
            let name = format!("order-{}", index % 5);
            match index / 5 % 3 {
                0 => ctx.create(&path, json!({"metadata": {"name": name}})).await?,
                1 => mutate(&ctx, &name, index as u32).await?,
                _ => ctx.delete(&format!("{path}/{name}")).await?,
            };
        }
        anyhow::Ok(())
    };
    // With every event of the first watch another one begins there; each must tell the rest alike.
    let reads = async {
        let (mut order, mut others) = (Vec::new(), Vec::new());
        while order.len() < CHANGES {
            let (_, object) = first.next().await?;
            if object["metadata"]["name"].as_str().is_some_and(|name| name.starts_with("order-")) {
                let at = version(&object).to_owned();
                others.push((order.len() + 1, ctx.watch(&path, &format!("&resourceVersion={at}")).await?));
                order.push(at);
            }
        }
        anyhow::Ok((order, others))
    };
    let ((), (order, others)) = futures::try_join!(writes, reads)?;
    for (begin, mut watch) in others {
        for wanted in &order[begin..] {
            let (_, object) = watch.next().await?;
            anyhow::ensure!(version(&object) == wanted, "{wanted} expected: {object}");
        }
    }
    Ok(())
}
