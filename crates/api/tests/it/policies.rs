//! Admission policies: which writes they are asked about, what they see, and what becomes of their answers.

use std::sync::Arc;

use skiff_api::authn::UserInfo;
use skiff_api::authz::{AllowAll, Attributes, Authorizer, Decision, Rules, Target};

use crate::support::{Api, CONFIG_MAPS, DEPLOYMENTS, PODS, api, api_with, deployment, pod};

const GROUP: &str = "/apis/admissionregistration.k8s.io/v1";

/// `resourceRules` for one resource.
fn rules(group: &str, resource: &str) -> String {
    format!(
        r#""resourceRules":[{{"apiGroups":["{group}"],"apiVersions":["v1"],"operations":["CREATE","UPDATE"],
        "resources":["{resource}"]}}]"#
    )
}

async fn made(api: &Api, path: &str, body: &str) {
    let answer = api.post(&format!("{GROUP}/{path}"), body).await;
    assert_eq!(answer.line(), "201", "{body}");
}

/// A validating policy `p` over a resource, bound by `b`. `more` are fields of the spec, beginning with a comma.
async fn validating(api: &Api, group: &str, resource: &str, more: &str, binding: &str) {
    let rules = rules(group, resource);
    let policy = format!(r#"{{"metadata":{{"name":"p"}},"spec":{{"matchConstraints":{{{rules}}}{more}}}}}"#);
    made(api, "validatingadmissionpolicies", &policy).await;
    let binding =
        format!(r#"{{"metadata":{{"name":"b"}},"spec":{{"policyName":"p","validationActions":["Deny"]{binding}}}}}"#);
    made(api, "validatingadmissionpolicybindings", &binding).await;
}

/// A mutating policy over a resource, with a binding of the same name.
async fn mutating(api: &Api, name: &str, group: &str, resource: &str, more: &str) {
    let rules = rules(group, resource);
    let policy = format!(
        r#"{{"metadata":{{"name":"{name}"}},"spec":{{"matchConstraints":{{{rules}}},"reinvocationPolicy":"IfNeeded"{more}}}}}"#
    );
    made(api, "mutatingadmissionpolicies", &policy).await;
    let binding = format!(r#"{{"metadata":{{"name":"{name}"}},"spec":{{"policyName":"{name}"}}}}"#);
    made(api, "mutatingadmissionpolicybindings", &binding).await;
}

fn apply(expression: &str) -> String {
    format!(
        r#","mutations":[{{"patchType":"ApplyConfiguration","applyConfiguration":{{"expression":"{expression}"}}}}]"#
    )
}

fn json_patch(expression: &str) -> String {
    format!(r#","mutations":[{{"patchType":"JSONPatch","jsonPatch":{{"expression":"{expression}"}}}}]"#)
}

fn replicas(name: &str, replicas: i64) -> String {
    deployment(name).replace("\"selector\"", &format!("\"replicas\":{replicas},\"selector\""))
}

fn config_map(name: &str, key: &str, value: &str) -> String {
    format!(r#"{{"metadata":{{"name":"{name}","labels":{{"team":"a"}}}},"data":{{"{key}":"{value}"}}}}"#)
}

#[tokio::test]
async fn a_deployment_is_validated() {
    let api = api().await;
    let more = r#","validations":[
        {"expression":"object.spec.replicas > 1","messageExpression":"'wants 2, has ' + string(object.spec.replicas)"},
        {"expression":"object.spec.replicas % 2 == 1","message":"only odd numbers","reason":"Forbidden"}]"#;
    validating(&api, "apps", "deployments", more, "").await;
    assert_eq!(
        api.post(DEPLOYMENTS, &replicas("one", 1)).await.line(),
        "422 Invalid: deployments.apps \"one\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied \
         request: wants 2, has 1"
    );
    let even = api.post(DEPLOYMENTS, &replicas("two", 2)).await;
    assert_eq!(
        even.line(),
        "403 Forbidden: deployments.apps \"two\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied \
         request: only odd numbers"
    );
    assert!(even.at(&["details", "causes"]).contains("only odd numbers"), "{}", even.at(&["details"]));
    assert_eq!(api.post(DEPLOYMENTS, &replicas("three", 3)).await.line(), "201");
    // Through another version or resource nobody is asked.
    assert_eq!(api.post(PODS, &pod("p")).await.line(), "201");
    // An update is validated as well, and a change of the policy counts at once.
    let scaled = api.patch("merge", &format!("{DEPLOYMENTS}/three"), r#"{"spec":{"replicas":1}}"#).await;
    assert!(scaled.line().contains("wants 2, has 1"), "{}", scaled.line());
    api.delete(&format!("{GROUP}/validatingadmissionpolicybindings/b")).await;
    let scaled = api.patch("merge", &format!("{DEPLOYMENTS}/three"), r#"{"spec":{"replicas":1}}"#).await;
    assert_eq!(scaled.line(), "200");
}

#[tokio::test]
async fn expressions_refer_to_variables_request_namespace_and_old_object() {
    let api = api().await;
    let more = r#","variables":[
        {"name":"keys","expression":"object.data.map(k, k)"},
        {"name":"first","expression":"variables.keys[0]"}],
      "validations":[
        {"expression":"variables.first != 'bad'","messageExpression":"'key ' + variables.first"},
        {"expression":"request.operation == 'CREATE' || oldObject.data == object.data"},
        {"expression":"namespaceObject.metadata.name == request.namespace"},
        {"expression":"request.userInfo.username == 'tester' && request.resource.resource == 'configmaps'"}]"#;
    validating(&api, "", "configmaps", more, "").await;
    let bad = api.post(CONFIG_MAPS, &config_map("c", "bad", "x")).await.line();
    assert!(bad.ends_with("denied request: key bad"), "{bad}");
    assert_eq!(api.post(CONFIG_MAPS, &config_map("c", "good", "x")).await.line(), "201");
    let changed = api.put(&format!("{CONFIG_MAPS}/c"), &config_map("c", "good", "y")).await.line();
    assert!(
        changed.ends_with(
            "denied request: failed expression: request.operation == 'CREATE' || oldObject.data == object.data"
        ),
        "{changed}"
    );
}

#[tokio::test]
async fn errors_follow_the_failure_policy() {
    for (policy, expected) in
        [("Fail", "expression 'object.data.absent == 'x'' resulted in error: no such key: absent"), ("Ignore", "201")]
    {
        let api = api().await;
        let more =
            format!(r#","failurePolicy":"{policy}","validations":[{{"expression":"object.data.absent == 'x'"}}]"#);
        validating(&api, "", "configmaps", &more, "").await;
        let line = api.post(CONFIG_MAPS, &config_map("c", "k", "v")).await.line();
        assert!(line.ends_with(expected), "{line}");
    }
    let api = api().await;
    // Each evaluation ends at its limit, whatever the expression asks for.
    let more = r#","validations":[{"expression":
        "lists.range(3000).all(a, lists.range(3000).all(b, a + b >= 0))"}]"#;
    validating(&api, "", "configmaps", more, "").await;
    let line = api.post(CONFIG_MAPS, &config_map("c", "k", "v")).await.line();
    assert!(line.ends_with("operation cancelled: actual cost limit exceeded"), "{line}");
}

#[tokio::test]
async fn bindings_warn_and_write_for_the_audit_log() {
    let api = api().await;
    let rules = rules("", "configmaps");
    let policy = format!(
        r#"{{"metadata":{{"name":"p"}},"spec":{{"matchConstraints":{{{rules}}},
        "validations":[{{"expression":"false","message":"never"}}]}}}}"#
    );
    made(&api, "validatingadmissionpolicies", &policy).await;
    let binding = r#"{"metadata":{"name":"w"},"spec":{"policyName":"p","validationActions":["Warn","Audit"]}}"#;
    made(&api, "validatingadmissionpolicybindings", binding).await;
    let answer = api.post(CONFIG_MAPS, &config_map("c", "k", "v")).await;
    assert_eq!(answer.line(), "201");
    assert_eq!(
        answer.headers.get("warning").unwrap(),
        "299 - \"Validation failed for ValidatingAdmissionPolicy 'p' with binding 'w': never\""
    );
}

#[tokio::test]
async fn rules_selectors_and_conditions_choose_the_writes() {
    let api = api().await;
    let policy = r#"{"metadata":{"name":"p"},"spec":{
        "matchConstraints":{
            "resourceRules":[{"apiGroups":[""],"apiVersions":["*"],"operations":["*"],"resources":["configmaps"]}],
            "excludeResourceRules":[{"apiGroups":[""],"apiVersions":["v1"],"operations":["*"],
                "resources":["configmaps"],"resourceNames":["spared"]}],
            "objectSelector":{"matchLabels":{"team":"a"}}},
        "matchConditions":[{"name":"n","expression":"object == null || object.metadata.name != 'skipped'"}],
        "validations":[{"expression":"false"}]}}"#;
    made(&api, "validatingadmissionpolicies", policy).await;
    let binding = r#"{"metadata":{"name":"b"},"spec":{"policyName":"p","validationActions":["Deny"],
        "matchResources":{"namespaceSelector":{"matchLabels":{"kubernetes.io/metadata.name":"default"}}}}}"#;
    made(&api, "validatingadmissionpolicybindings", binding).await;
    let denied = "denied request: failed expression: false";
    let line = |name: &'static str| {
        let api = &api;
        async move { api.post(CONFIG_MAPS, &config_map(name, "k", "v")).await.line() }
    };
    assert!(line("c").await.ends_with(denied));
    assert_eq!(line("spared").await, "201");
    assert_eq!(line("skipped").await, "201");
    let plain = config_map("plain", "k", "v").replace("team", "crew");
    assert_eq!(api.post(CONFIG_MAPS, &plain).await.line(), "201");
    let elsewhere = "/api/v1/namespaces/kube-system/configmaps";
    assert_eq!(api.post(elsewhere, &config_map("c", "k", "v")).await.line(), "201");
    // On a delete the labels are those of the old object.
    assert!(api.delete(&format!("{CONFIG_MAPS}/skipped")).await.line().ends_with(denied));
}

#[tokio::test]
async fn params_are_found_by_name_and_by_selector() {
    let api = api().await;
    let rules = rules("apps", "deployments");
    let policy = format!(
        r#"{{"metadata":{{"name":"p"}},"spec":{{"matchConstraints":{{{rules}}},
        "paramKind":{{"apiVersion":"v1","kind":"ConfigMap"}},
        "validations":[{{"expression":"object.spec.replicas <= int(params.data.max)",
            "messageExpression":"'at most ' + params.data.max"}}]}}}}"#
    );
    made(&api, "validatingadmissionpolicies", &policy).await;
    let bind = |name: &str, reference: &str| {
        format!(
            r#"{{"metadata":{{"name":"{name}"}},"spec":{{"policyName":"p","validationActions":["Deny"],
            "paramRef":{{"parameterNotFoundAction":"Deny"{reference}}}}}}}"#
        )
    };
    let bindings = "validatingadmissionpolicybindings";
    made(&api, bindings, &bind("b", r#","name":"limits""#)).await;
    let line = api.post(DEPLOYMENTS, &replicas("a", 1)).await.line();
    assert!(
        line.ends_with(
            "with binding 'b' denied request: failed to configure binding: no params found for policy binding with \
             `Deny` parameterNotFoundAction"
        ),
        "{line}"
    );
    assert_eq!(api.post(CONFIG_MAPS, &config_map("limits", "max", "3")).await.line(), "201");
    assert_eq!(api.post(DEPLOYMENTS, &replicas("a", 3)).await.line(), "201");
    let line = api.post(DEPLOYMENTS, &replicas("b", 4)).await.line();
    assert!(line.ends_with("denied request: at most 3"), "{line}");
    assert_eq!(api.post(CONFIG_MAPS, &config_map("tight", "max", "2")).await.line(), "201");
    made(&api, bindings, &bind("by-label", r#","selector":{"matchLabels":{"team":"a"}}"#)).await;
    let line = api.post(DEPLOYMENTS, &replicas("b", 3)).await.line();
    assert!(line.ends_with("with binding 'by-label' denied request: at most 2"), "{line}");
}

#[derive(Debug)]
struct OnlyNodes;

impl Authorizer for OnlyNodes {
    fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        match attributes.target {
            Target::Resource { resource: "nodes", .. } if attributes.user.name == "limited" => {
                Decision::NoOpinion("not nodes".into())
            }
            _ => Decision::Allow(String::new()),
        }
    }

    fn rules(&self, _: &UserInfo, _: &str) -> Rules {
        AllowAll.rules_of_everybody()
    }
}

#[tokio::test]
async fn expressions_ask_the_authorizer() {
    let api = api_with(Arc::new(OnlyNodes)).await;
    let more = r#","validations":[{"expression":
        "authorizer.group('').resource('nodes').check('delete').allowed()","message":"may not"},
        {"expression":"authorizer.requestResource.check('custom').allowed()"}]"#;
    validating(&api, "", "configmaps", more, "").await;
    assert_eq!(api.post(CONFIG_MAPS, &config_map("c", "k", "v")).await.line(), "201");
    let limited = api.as_user(UserInfo::new("limited", &[]));
    let line = limited.post(CONFIG_MAPS, &config_map("d", "k", "v")).await.line();
    assert!(line.ends_with("denied request: may not"), "{line}");
}

#[tokio::test]
async fn expressions_that_do_not_compile_are_refused() {
    let api = api().await;
    let rules = rules("", "configmaps");
    let policy = format!(
        r#"{{"metadata":{{"name":"p"}},"spec":{{"matchConstraints":{{{rules}}},"validations":[
        {{"expression":"object.data == "}},{{"expression":"1 + 1"}},{{"expression":"true","messageExpression":"1"}}]}}}}"#
    );
    let answer = api.post(&format!("{GROUP}/validatingadmissionpolicies"), &policy).await;
    assert_eq!(answer.status.as_u16(), 422);
    let causes: Vec<String> = answer
        .tree()
        .list_at(&["details", "causes"])
        .iter()
        .map(|cause| format!("{} {}", cause.str_at(&["field"]), cause.str_at(&["message"]).lines().next().unwrap()))
        .collect();
    assert!(causes[0].starts_with("spec.validations[0].expression Invalid value: \"object.data == \": compilation"));
    assert_eq!(
        causes[1..],
        [
            "spec.validations[1].expression Invalid value: \"1 + 1\": must evaluate to bool but got int",
            "spec.validations[2].messageExpression Invalid value: \"1\": must evaluate to string but got int"
        ]
    );
}

#[tokio::test]
async fn a_deployment_is_mutated() {
    let api = api().await;
    mutating(&api, "replicas", "apps", "deployments", &apply("Object{spec: Object.spec{replicas: 100}}")).await;
    let made = api.post(DEPLOYMENTS, &replicas("a", 1)).await;
    assert_eq!((made.line(), made.at(&["spec", "replicas"])), ("201".into(), "100".into()));
    assert_eq!(made.at(&["spec", "selector", "matchLabels"]), r#"{"a":"b"}"#);
    let annotate = "Object{metadata: Object.metadata{annotations: {'my-annotation': 'by ' + request.operation}}}";
    mutating(&api, "annotate", "apps", "deployments", &apply(annotate)).await;
    let made = api.post(DEPLOYMENTS, &replicas("b", 1)).await;
    assert_eq!(made.at(&["metadata", "annotations"]), r#"{"my-annotation":"by CREATE"}"#);
    assert_eq!(made.at(&["spec", "replicas"]), "100");
}

#[tokio::test]
async fn patches_are_applied_and_seen_by_the_next() {
    let api = api().await;
    let patch = "[JSONPatch{op: 'test', path: '/data/k', value: 'v'}, JSONPatch{op: 'add', path: '/data/l', value: 'w'}, \
                 JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('example.com/of'), \
                 value: object.metadata.name}]";
    // Comes first and is asked again, because somebody changed the object after it.
    let count = "[JSONPatch{op: 'add', path: '/data/seen', value: string(object.data.size())}]";
    mutating(&api, "a-count", "", "configmaps", &json_patch(count)).await;
    mutating(&api, "b-patch", "", "configmaps", &json_patch(patch)).await;
    let made = api.post(CONFIG_MAPS, &config_map("c", "k", "v")).await;
    assert_eq!(made.at(&["data"]), r#"{"k":"v","l":"w","seen":"3"}"#, "{}", made.line());
    assert_eq!(made.at(&["metadata", "labels"]), r#"{"example.com/of":"c","team":"a"}"#);
    // A patch whose test does not hold changes nothing.
    let made = api.post(CONFIG_MAPS, &config_map("d", "k", "other")).await;
    assert_eq!(made.at(&["data"]), r#"{"k":"other","seen":"1"}"#, "{}", made.line());
}

#[tokio::test]
async fn mutations_that_cannot_be_made_refuse_the_write() {
    let api = api().await;
    let atomic = "Object{spec: Object.spec{template: Object.spec.template{spec: Object.spec.template.spec{\
                  containers: [Object.spec.template.spec.containers{name: 'c', args: ['x']}]}}}}";
    mutating(&api, "m", "apps", "deployments", &apply(atomic)).await;
    let answer = api.post(DEPLOYMENTS, &replicas("a", 1)).await;
    assert_eq!(
        answer.line(),
        "403 Invalid: policy 'm' with binding 'm' denied request: error applying patch: invalid ApplyConfiguration: may \
         not mutate atomic arrays, maps or structs: .spec.template.spec.containers[0].args"
    );
    api.delete(&format!("{GROUP}/mutatingadmissionpolicies/m")).await;
    let wrong = "Object{spec: Object.wrong{replicas: 1}}";
    let rules = rules("apps", "deployments");
    let policy = format!(
        r#"{{"metadata":{{"name":"m"}},"spec":{{"matchConstraints":{{{rules}}},"reinvocationPolicy":"Never"{}}}}}"#,
        apply(wrong)
    );
    made(&api, "mutatingadmissionpolicies", &policy).await;
    let line = api.post(DEPLOYMENTS, &replicas("a", 1)).await.line();
    assert!(line.contains("type mismatch: unexpected type name \"Object.wrong\", expected \"Object.spec\""), "{line}");
}

#[tokio::test]
async fn types_are_checked_and_said_in_the_status() {
    let api = api().await;
    let rules = rules("apps", "deployments");
    let policy = format!(
        r#"{{"metadata":{{"name":"p"}},"spec":{{"matchConstraints":{{{rules}}},"validations":[
        {{"expression":"object.spec.replicas > 1"}},
        {{"expression":"object.spec.maxReplicas > 1","messageExpression":"'at ' + object.spec.replicas"}}]}}}}"#
    );
    made(&api, "validatingadmissionpolicies", &policy).await;
    let path = format!("{GROUP}/validatingadmissionpolicies/p");
    let status = loop {
        let status = api.get(&path).await.tree().get("status").cloned().unwrap_or_default();
        if status.int_at(&["observedGeneration"]) == Some(1) {
            break status;
        }
        tokio::task::yield_now().await;
    };
    let warnings: Vec<String> = status
        .list_at(&["typeChecking", "expressionWarnings"])
        .iter()
        .map(|warning| format!("{} {}", warning.str_at(&["fieldRef"]), warning.str_at(&["warning"])))
        .collect();
    assert_eq!(
        warnings,
        [
            "spec.validations[1].expression apps/v1, Kind=Deployment: compilation failed: ERROR: <input>:1:12: undefined \
             field 'maxReplicas'\n | object.spec.maxReplicas > 1\n | ...........^\n",
            "spec.validations[1].messageExpression apps/v1, Kind=Deployment: compilation failed: ERROR: <input>:1:7: \
             found no matching overload for '_+_' applied to '(string, int)'\n | 'at ' + object.spec.replicas\n | ......^\n"
        ]
    );
}
