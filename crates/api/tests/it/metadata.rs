//! What every object must keep to, and who is written down as having changed it.

use crate::support::{api, deployment};

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

#[tokio::test]
async fn metadata_says_everything_that_is_wrong() {
    let api = api().await;
    let answer = api
        .post(
            CONFIG_MAPS,
            r#"{"metadata":{"name":"a","generateName":"A-","finalizers":["x","orphan","foregroundDeletion"],
            "ownerReferences":[{"apiVersion":"v1","kind":"Event","name":"e","uid":"u","controller":true},{"kind":"K","name":"n","uid":"v","controller":true},{}]}}"#,
        )
        .await;
    assert!(answer.line().starts_with("422 Invalid"), "{}", answer.line());
    let causes = answer.tree();
    let found: Vec<String> = causes
        .list_at(&["details", "causes"])
        .iter()
        .map(|cause| format!("{}: {}", cause.str_at(&["field"]), cause.str_at(&["message"])))
        .collect();
    for want in [
        "metadata.finalizers[0]: Invalid value: \"x\": name is neither a standard finalizer name nor is it fully qualified",
        "metadata.ownerReferences.apiVersion: Invalid value: \"\": version must not be empty",
        "metadata.ownerReferences.kind: Invalid value: \"\": must not be empty",
    ] {
        assert!(found.iter().any(|one| one == want), "{want} is not in {found:#?}");
    }
    for part in [
        "metadata.generateName: Invalid value: \"A-\"",
        "/v1, Kind=Event is disallowed from being an owner",
        "Found \"true\" in references for Event/e and K/n",
        "finalizer set with both",
    ] {
        assert!(found.iter().any(|one| one.contains(part)), "{part} is not in {found:#?}");
    }
}

#[tokio::test]
async fn a_scale_is_written_down_as_one() {
    let api = api().await;
    assert_eq!(api.post(DEPLOYMENTS, &deployment("a")).await.line(), "201");
    let scale = format!("{DEPLOYMENTS}/a/scale");
    assert_eq!(api.patch("merge", &scale, r#"{"spec":{"replicas":5}}"#).await.line(), "200");
    let now = api.get(&format!("{DEPLOYMENTS}/a")).await.tree();
    let of_scale = |entry: &&skiff_object::Tree| entry.str_at(&["subresource"]) == "scale";
    let entry = now.list_at(&["metadata", "managedFields"]).iter().find(of_scale).expect("an entry for scale");
    assert!(entry.at(&["fieldsV1", "f:spec", "f:replicas"]).is_some(), "{entry:?}");
}
