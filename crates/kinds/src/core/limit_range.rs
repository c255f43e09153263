//! `limitranges` in `v1`.

use std::collections::{BTreeSet, HashSet};

use skiff_object::Tree;
use skiff_object::errors::FieldError;
use skiff_object::name;
use skiff_object::path::Path;
use skiff_object::quantity::Quantity;

use crate::checks::{self, Found, SPEC, resources};
use crate::facts::Facts;
use crate::fill;
use crate::kind::Kind;

/// Defaults and bounds for what one object in a namespace may ask for.
pub(crate) struct LimitRange(pub(crate) Facts);

impl Kind for LimitRange {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn default(&self, object: &mut Tree) {
        for limit in fill::items(object, &["spec", "limits"]) {
            for list in ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"] {
                fill::round_resources(limit, &[list]);
            }
            if limit.str_at(&["type"]) != "Container" {
                continue;
            }
            for (target, source) in [("default", "max"), ("defaultRequest", "default"), ("defaultRequest", "min")] {
                if let Some(source) = limit.get(source).and_then(Tree::as_map).cloned() {
                    fill::entries(limit, target, &source);
                }
            }
        }
    }

    fn validate_create(&self, object: &Tree) -> Vec<FieldError> {
        let mut found = Vec::new();
        let mut types = HashSet::new();
        checks::each(checks::spec(object), "limits", SPEC, |limit, path| {
            let ty = limit.str_at(&["type"]);
            let wrong = name::qualified_name(ty);
            if wrong.is_empty() && !ty.contains('/') && !matches!(ty, "Pod" | "Container" | "PersistentVolumeClaim") {
                let why = "must be a standard limit type or fully qualified";
                found.push(FieldError::invalid(path.child("type"), ty, why));
            }
            checks::invalid(&mut found, path.child("type"), ty, wrong);
            if !types.insert(ty) {
                found.push(FieldError::duplicate(path.child("type"), ty));
            }
            self::limit(&mut found, limit, ty, path);
        });
        found
    }
    fn validate_update(&self, new: &Tree, _old: &Tree) -> Vec<FieldError> {
        self.validate_create(new)
    }
}

const LISTS: [&str; 5] = ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"];

fn limit(found: &mut Found, limit: &Tree, ty: &str, path: Path<'_>) {
    let mut names = BTreeSet::new();
    for list in LISTS {
        if ty == "Pod" && list.starts_with("default") {
            if limit.get(list).and_then(Tree::as_map).is_some_and(|map| !map.is_empty()) {
                found.push(FieldError::forbidden(path.child(list), "may not be specified when `type` is 'Pod'"));
            }
            continue;
        }
        checks::entries(limit, list, path, |resource, _, path| {
            if matches!(ty, "Pod" | "Container") {
                resources::container_resource_name(found, resource, path);
            } else {
                resources::resource_name(found, resource, path);
            }
            names.insert(resource);
        });
    }
    if ty == "PersistentVolumeClaim" && limit.at(&["min", "storage"]).or(limit.at(&["max", "storage"])).is_none() {
        let why = "either minimum or maximum storage value is required, but neither was provided";
        found.push(FieldError::required(path.child("limits"), why));
    }
    for resource in names {
        bounds(found, limit, resource, path);
    }
}

/// The five amounts of one resource must agree with each other.
fn bounds(found: &mut Found, limit: &Tree, resource: &str, path: Path<'_>) {
    let [max, min, default, request, ratio] = LISTS.map(|list| resources::quantity(limit.at(&[list, resource])));
    let mut refuse = |list: &str, value: Quantity, why: String| {
        found.push(FieldError::invalid(path.child(list).key(resource), value.to_string(), why));
    };
    if let (Some(min), Some(max)) = (min, max)
        && min > max
    {
        refuse("min", min, format!("min value {min} is greater than max value {max}"));
    }
    if let Some(request) = request {
        if let Some(min) = min.filter(|min| *min > request) {
            let why = format!("min value {min} is greater than default request value {request}");
            refuse("defaultRequest", request, why);
        }
        if let Some(max) = max.filter(|max| request > *max) {
            let why = format!("default request value {request} is greater than max value {max}");
            refuse("defaultRequest", request, why);
        }
        if let Some(default) = default.filter(|default| request > *default) {
            let why = format!("default request value {request} is greater than default limit value {default}");
            refuse("defaultRequest", request, why);
        }
    }
    if let Some(default) = default {
        if let Some(min) = min.filter(|min| *min > default) {
            refuse("default", min, format!("min value {min} is greater than default value {default}"));
        }
        if let Some(max) = max.filter(|max| default > *max) {
            refuse("default", max, format!("default value {default} is greater than max value {max}"));
        }
    }
    if let Some(ratio) = ratio {
        judge_ratio(ratio, min, max, |why| refuse("maxLimitRequestRatio", ratio, why));
    }
    if let (Some(default), Some(request)) = (default, request)
        && default != request
        && !resources::allows_overcommit(resource)
    {
        let why = format!("default value {default} must equal to defaultRequest value {request} in {resource}");
        refuse("defaultRequest", request, why);
    }
}

fn judge_ratio(ratio: Quantity, min: Option<Quantity>, max: Option<Quantity>, mut refuse: impl FnMut(String)) {
    if ratio.nanos() < 1_000_000_000 {
        refuse(format!("ratio {ratio} is less than 1"));
    }
    if let (Some(min), Some(max)) = (min, max)
        && min.nanos() > 0
    {
        let [ratio_number, min, max] = [ratio, min, max].map(|amount| amount.nanos() as f64);
        let bound = max / min;
        if ratio_number / 1e9 > bound {
            refuse(format!("ratio {ratio} is greater than max/min = {bound:.6}"));
        }
    }
}
