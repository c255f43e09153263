//! `horizontalpodautoscalers` in `autoscaling/v2`, which is stored, and `autoscaling/v1`.
//!
//! Version 1 knows one metric, the utilisation of the CPU. What else an autoscaler has is kept in
//! annotations whenever it is shown as version 1, in a notation older than both.

use std::borrow::Cow;

use skiff_object::errors::FieldError;
use skiff_object::time::Time;
use skiff_object::{Map, Tree, json};

use crate::checks::autoscalers;
use crate::facts::Facts;
use crate::kind::Kind;
use crate::table::Column;
use crate::{cells, fill};

/// Scales by load.
pub(crate) struct HorizontalPodAutoscalerV2(pub(crate) Facts);

impl Kind for HorizontalPodAutoscalerV2 {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn default(&self, object: &mut Tree) {
        let spec = fill::within(object, "spec");
        fill::absent(spec, "minReplicas", 1);
        if spec.list_at(&["metrics"]).is_empty() {
            let mut metric = Tree::map();
            metric.set(&["type"], "Resource");
            metric.set(&["resource", "name"], "cpu");
            metric.set(&["resource", "target", "type"], "Utilization");
            metric.set(&["resource", "target", "averageUtilization"], 80);
            fill::put(spec, "metrics", vec![metric]);
        }
        fill::each(spec, &["behavior"], fill_behavior);
    }

    fn columns(&self) -> Cow<'_, [Column]> {
        Cow::Borrowed(COLUMNS)
    }

    fn row(&self, object: &Tree, now: Time) -> Vec<Tree> {
        row(object, &metrics(object), now)
    }

    fn validate_create(&self, object: &Tree) -> Vec<FieldError> {
        autoscalers::autoscaler(object)
    }

    fn validate_update(&self, new: &Tree, _old: &Tree) -> Vec<FieldError> {
        self.validate_create(new)
    }

    fn validate_subresource(&self, _: &str, new: &Tree, _old: &Tree) -> Vec<FieldError> {
        autoscalers::status(new)
    }
}

/// Scales by load.
pub(crate) struct HorizontalPodAutoscalerV1(pub(crate) Facts);

impl Kind for HorizontalPodAutoscalerV1 {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn to_stored(&self, object: &mut Tree) {
        to_v2(object);
    }

    fn to_served(&self, object: &mut Tree) {
        to_v1(object);
    }

    fn default(&self, object: &mut Tree) {
        fill::absent(fill::within(object, "spec"), "minReplicas", 1);
    }

    fn columns(&self) -> Cow<'_, [Column]> {
        Cow::Borrowed(COLUMNS)
    }

    fn row(&self, object: &Tree, now: Time) -> Vec<Tree> {
        row(object, &cpu_v1(object), now)
    }

    fn validate_create(&self, object: &Tree) -> Vec<FieldError> {
        let mut modern = object.clone();
        to_v2(&mut modern);
        autoscalers::autoscaler(&modern)
    }

    fn validate_update(&self, new: &Tree, _old: &Tree) -> Vec<FieldError> {
        self.validate_create(new)
    }

    fn validate_subresource(&self, _: &str, new: &Tree, _old: &Tree) -> Vec<FieldError> {
        autoscalers::status(new)
    }
}

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

/// What version 1 did before anyone asked it to.
const DEFAULT_CPU_UTILIZATION_PERCENT: i64 = 80;

/// One source of metrics: where a value stands in the notation of the annotations and in version 2.
struct Source {
    name: &'static str,
    fields: &'static [(&'static str, &'static [&'static str])],
}

const SPEC_SOURCES: &[Source] = &[
    Source {
        name: "object",
        fields: &[
            ("target", &["describedObject"]),
            ("metricName", &["metric", "name"]),
            ("targetValue", &["target", "value"]),
            ("selector", &["metric", "selector"]),
            ("averageValue", &["target", "averageValue"]),
        ],
    },
    Source {
        name: "pods",
        fields: &[
            ("metricName", &["metric", "name"]),
            ("targetAverageValue", &["target", "averageValue"]),
            ("selector", &["metric", "selector"]),
        ],
    },
    Source { name: "resource", fields: RESOURCE_SPEC },
    Source { name: "containerResource", fields: RESOURCE_SPEC },
    Source {
        name: "external",
        fields: &[
            ("metricName", &["metric", "name"]),
            ("metricSelector", &["metric", "selector"]),
            ("targetValue", &["target", "value"]),
            ("targetAverageValue", &["target", "averageValue"]),
        ],
    },
];

const RESOURCE_SPEC: &[(&str, &[&str])] = &[
    ("name", &["name"]),
    ("targetAverageUtilization", &["target", "averageUtilization"]),
    ("targetAverageValue", &["target", "averageValue"]),
    ("container", &["container"]),
];

const STATUS_SOURCES: &[Source] = &[
    Source {
        name: "object",
        fields: &[
            ("target", &["describedObject"]),
            ("metricName", &["metric", "name"]),
            ("currentValue", &["current", "value"]),
            ("selector", &["metric", "selector"]),
            ("averageValue", &["current", "averageValue"]),
        ],
    },
    Source {
        name: "pods",
        fields: &[
            ("metricName", &["metric", "name"]),
            ("currentAverageValue", &["current", "averageValue"]),
            ("selector", &["metric", "selector"]),
        ],
    },
    Source { name: "resource", fields: RESOURCE_STATUS },
    Source { name: "containerResource", fields: RESOURCE_STATUS },
    Source {
        name: "external",
        fields: &[
            ("metricName", &["metric", "name"]),
            ("metricSelector", &["metric", "selector"]),
            ("currentValue", &["current", "value"]),
            ("currentAverageValue", &["current", "averageValue"]),
        ],
    },
];

const RESOURCE_STATUS: &[(&str, &[&str])] = &[
    ("name", &["name"]),
    ("currentAverageUtilization", &["current", "averageUtilization"]),
    ("currentAverageValue", &["current", "averageValue"]),
    ("container", &["container"]),
];

fn to_v1(object: &mut Tree) {
    object.set(&["apiVersion"], "autoscaling/v1");
    let mut annotations: Vec<(&'static str, Tree)> = Vec::new();
    let metrics = take_list(object, &["spec", "metrics"]);
    let is_cpu = |metric: &&Tree, value: &[&str]| {
        metric.str_at(&["type"]) == "Resource"
            && metric.str_at(&["resource", "name"]) == "cpu"
            && metric.int_at(value).is_some()
    };
    let wanted = ["resource", "target", "averageUtilization"];
    if let Some(metric) = metrics.iter().find(|metric| is_cpu(metric, &wanted)) {
        object.set(&["spec", "targetCPUUtilizationPercentage"], metric.int_at(&wanted).unwrap_or_default());
    }
    let others: Vec<Tree> = metrics
        .iter()
        .filter(|metric| !is_cpu(metric, &wanted))
        .map(|metric| annotated(metric, SPEC_SOURCES))
        .collect();
    if !others.is_empty() {
        annotations.push((METRICS, Tree::List(others)));
    }
    let current = take_list(object, &["status", "currentMetrics"]);
    let observed = ["resource", "current", "averageUtilization"];
    if let Some(metric) = current.iter().rfind(|metric| is_cpu(metric, &observed)) {
        object.set(&["status", "currentCPUUtilizationPercentage"], metric.int_at(&observed).unwrap_or_default());
    }
    if !current.is_empty() {
        let current = current.iter().map(|metric| annotated(metric, STATUS_SOURCES)).collect();
        annotations.push((CURRENT_METRICS, Tree::List(current)));
    }
    annotations.extend(object.unset(&["status", "conditions"]).map(|value| (CONDITIONS, value)));
    annotations.extend(object.unset(&["spec", "behavior"]).map(|value| (BEHAVIOR, value)));
    for (name, value) in annotations {
        let text = String::from_utf8_lossy(&json::encode_untyped(&value)).into_owned();
        object.set(&["metadata", "annotations", name], text);
    }
}

fn to_v2(object: &mut Tree) {
    object.set(&["apiVersion"], "autoscaling/v2");
    let mut metrics: Vec<Tree> =
        annotation_list(object, METRICS).iter().map(|metric| modern(metric, SPEC_SOURCES, "target")).collect();
    metrics.extend(
        object.unset(&["spec", "targetCPUUtilizationPercentage"]).and_then(|value| value.as_int()).map(cpu_metric),
    );
    if metrics.is_empty() {
        metrics.push(cpu_metric(DEFAULT_CPU_UTILIZATION_PERCENT));
    }
    object.set(&["spec", "metrics"], metrics);

    let current = annotation_list(object, CURRENT_METRICS);
    let utilization = object.unset(&["status", "currentCPUUtilizationPercentage"]).and_then(|value| value.as_int());
    if !current.is_empty() {
        let current: Vec<Tree> = current.iter().map(|metric| modern(metric, STATUS_SOURCES, "")).collect();
        object.set(&["status", "currentMetrics"], current);
    } else if let Some(percent) = utilization {
        let mut metric = Tree::map();
        metric.set(&["type"], "Resource");
        metric.set(&["resource", "name"], "cpu");
        metric.set(&["resource", "current", "averageUtilization"], percent);
        object.set(&["status", "currentMetrics"], vec![metric]);
    }
    let conditions = annotation_list(object, CONDITIONS);
    if !conditions.is_empty() {
        object.set(&["status", "conditions"], conditions);
    }
    if let Some(behavior @ Tree::Map(_)) = annotation(object, BEHAVIOR) {
        object.set(&["spec", "behavior"], behavior);
    }
    for name in [METRICS, CURRENT_METRICS, CONDITIONS, BEHAVIOR] {
        object.unset(&["metadata", "annotations", name]);
    }
    if object.at(&["metadata", "annotations"]).and_then(Tree::as_map).is_some_and(Map::is_empty) {
        object.unset(&["metadata", "annotations"]);
    }
}

fn cpu_metric(percent: i64) -> Tree {
    let mut metric = Tree::map();
    metric.set(&["type"], "Resource");
    metric.set(&["resource", "name"], "cpu");
    metric.set(&["resource", "target", "type"], "Utilization");
    metric.set(&["resource", "target", "averageUtilization"], percent);
    metric
}

fn take_list(object: &mut Tree, path: &[&str]) -> Vec<Tree> {
    match object.unset(path) {
        Some(Tree::List(items)) => items,
        _ => Vec::new(),
    }
}

/// What an annotation holds. Anyone can write annotations: what does not read counts as absent.
fn annotation(object: &Tree, name: &str) -> Option<Tree> {
    json::decode_untyped(object.str_at(&["metadata", "annotations", name]).as_bytes()).ok()
}

fn annotation_list(object: &Tree, name: &str) -> Vec<Tree> {
    match annotation(object, name) {
        Some(Tree::List(items)) => items,
        _ => Vec::new(),
    }
}

/// A metric of version 2 in the notation of the annotations.
fn annotated(metric: &Tree, sources: &[Source]) -> Tree {
    convert(metric, sources, |from, to, field, path| {
        if let Some(value) = from.at(path) {
            to.set(&[field], value.clone());
        }
    })
}

/// A metric in the notation of the annotations as version 2 has it. What it is compared with
/// follows from which values there are.
fn modern(metric: &Tree, sources: &[Source], target: &'static str) -> Tree {
    let mut out = convert(metric, sources, |from, to, field, path| {
        if let Some(value) = from.get(field) {
            to.set(path, value.clone());
        }
    });
    if target.is_empty() {
        return out;
    }
    for source in sources {
        let Some(inner) = out.get_mut(source.name) else { continue };
        let has = |field: &str| inner.at(&[target, field]).is_some();
        let kind = if has("averageUtilization") {
            "Utilization"
        } else if has("averageValue") {
            "AverageValue"
        } else {
            "Value"
        };
        inner.set(&[target, "type"], kind);
    }
    out
}

fn convert(
    metric: &Tree,
    sources: &[Source],
    copy: impl Fn(&Tree, &mut Tree, &'static str, &'static [&'static str]),
) -> Tree {
    let mut out = Tree::map();
    out.set(&["type"], metric.str_at(&["type"]));
    for source in sources {
        let Some(from) = metric.get(source.name) else { continue };
        let mut to = Tree::map();
        for (field, path) in source.fields {
            copy(from, &mut to, field, path);
        }
        out.set(&[source.name], to);
    }
    out
}

fn fill_behavior(behavior: &mut Tree) {
    let policy = |ty: &str, value: i64| {
        let mut policy = Tree::map();
        policy.set(&["type"], ty);
        policy.set(&["value"], value);
        policy.set(&["periodSeconds"], 15);
        policy
    };
    let up = fill::within(behavior, "scaleUp");
    fill::absent(up, "stabilizationWindowSeconds", 0);
    fill::absent(up, "selectPolicy", "Max");
    fill::absent(up, "policies", vec![policy("Pods", 4), policy("Percent", 100)]);
    let down = fill::within(behavior, "scaleDown");
    fill::absent(down, "selectPolicy", "Max");
    fill::absent(down, "policies", vec![policy("Percent", 100)]);
}

const COLUMNS: &[Column] = &[
    Column::name(),
    Column::new("Reference", "string", "What is scaled."),
    Column::new("Targets", "string", "Current values and those aimed at."),
    Column::new("MinPods", "string", "How many pods at least."),
    Column::new("MaxPods", "string", "How many pods at most."),
    Column::new("Replicas", "string", "How many pods there are."),
    cells::AGE,
];

fn row(object: &Tree, targets: &str, now: Time) -> Vec<Tree> {
    let target = |field: &str| object.str_at(&["spec", "scaleTargetRef", field]);
    let min = object.int_at(&["spec", "minReplicas"]).map_or_else(|| "<unset>".to_owned(), |min| min.to_string());
    vec![
        cells::name(object),
        format!("{}/{}", target("kind"), target("name")).into(),
        targets.into(),
        min.into(),
        cells::number(object, &["spec", "maxReplicas"]),
        cells::number(object, &["status", "currentReplicas"]),
        cells::age(object, now),
    ]
}

fn cpu_v1(object: &Tree) -> String {
    let percent = |path: &[&str], otherwise: &str| {
        object.int_at(path).map_or_else(|| otherwise.to_owned(), |value| format!("{value}%"))
    };
    let current = percent(&["status", "currentCPUUtilizationPercentage"], "<unknown>");
    format!("cpu: {current}/{}", percent(&["spec", "targetCPUUtilizationPercentage"], "<auto>"))
}

fn metrics(object: &Tree) -> String {
    let current = object.list_at(&["status", "currentMetrics"]);
    let specs = object.list_at(&["spec", "metrics"]);
    let all: Vec<String> = specs.iter().enumerate().map(|(index, spec)| metric(spec, current.get(index))).collect();
    if all.is_empty() { "<none>".to_owned() } else { cells::some_of(all, 2, ", ") }
}

fn metric(spec: &Tree, status: Option<&Tree>) -> String {
    let (source, named) = match spec.str_at(&["type"]) {
        "Resource" => ("resource", true),
        "ContainerResource" => ("containerResource", true),
        "Pods" => ("pods", false),
        "Object" => ("object", false),
        "External" => ("external", false),
        _ => return "<unknown type>".to_owned(),
    };
    let now = |field: &str| status.and_then(|status| cells::scalar(status.at(&[source, "current", field])));
    let goal = |field: &str| cells::scalar(spec.at(&[source, "target", field]));
    let unknown = || "<unknown>".to_owned();
    let text = if let Some(goal) = goal("averageValue") {
        let average = if matches!(source, "object" | "external") { " (avg)" } else { "" };
        format!("{}/{goal}{average}", now("averageValue").unwrap_or_else(unknown))
    } else if named {
        let percent = |value: Option<String>, otherwise: &str| {
            value.map_or_else(|| otherwise.to_owned(), |value| format!("{value}%"))
        };
        format!("{}/{}", percent(now("averageUtilization"), "<unknown>"), percent(goal("averageUtilization"), "<auto>"))
    } else {
        format!("{}/{}", now("value").unwrap_or_else(unknown), goal("value").unwrap_or_else(|| "<auto>".to_owned()))
    };
    if named { format!("{}: {text}", spec.str_at(&[source, "name"])) } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn convert_text(text: &str, convert: impl Fn(&mut Tree)) -> (Tree, String) {
        let mut tree = json::decode_untyped(text.as_bytes()).unwrap();
        convert(&mut tree);
        let json = String::from_utf8(json::encode_untyped(&tree)).unwrap();
        (tree, json)
    }

    #[test]
    fn an_autoscaler_of_version_2_survives_version_1() {
        let text = r#"{"apiVersion":"autoscaling/v2","metadata":{"name":"web"},"spec":{"maxReplicas":5,"metrics":[
            {"type":"Pods","pods":{"metric":{"name":"requests"},"target":{"averageValue":"10","type":"AverageValue"}}},
            {"type":"Object","object":{"describedObject":{"kind":"Ingress","name":"web"},"metric":{"name":"hits"},"target":{"value":"2k","type":"Value"}}},
            {"type":"Resource","resource":{"name":"cpu","target":{"type":"Utilization","averageUtilization":60}}}],
            "behavior":{"scaleDown":{"stabilizationWindowSeconds":60}}},
            "status":{"conditions":[{"type":"AbleToScale","status":"True"}],
            "currentMetrics":[{"type":"Resource","resource":{"name":"cpu","current":{"averageUtilization":40,"averageValue":"200m"}}}]}}"#;
        let before = json::decode_untyped(text.as_bytes()).unwrap();
        let (mut tree, _) = convert_text(text, to_v1);
        assert_eq!(tree.int_at(&["spec", "targetCPUUtilizationPercentage"]), Some(60));
        assert_eq!(tree.int_at(&["status", "currentCPUUtilizationPercentage"]), Some(40));
        assert!(tree.str_at(&["metadata", "annotations", METRICS]).contains(r#""metricName":"requests""#));
        assert!(tree.at(&["spec", "metrics"]).is_none() && tree.at(&["spec", "behavior"]).is_none());
        to_v2(&mut tree);
        assert_eq!(tree, before);
    }

    #[test]
    fn an_autoscaler_without_a_metric_watches_the_cpu() {
        let (_, json) = convert_text(r#"{"apiVersion":"autoscaling/v1","spec":{"maxReplicas":3}}"#, to_v2);
        assert_eq!(
            json,
            r#"{"apiVersion":"autoscaling/v2","spec":{"maxReplicas":3,"metrics":[{"type":"Resource","resource":{"name":"cpu","target":{"type":"Utilization","averageUtilization":80}}}]}}"#
        );
    }
}
