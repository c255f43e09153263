//! Questions to the authorizer.

use std::sync::Arc;

use skiff_object::name;

use super::{Function, failed, unsupported};
use crate::authorizer::{Check, Decision, Subject};
use crate::error::EvalError;
use crate::opaque::Opaque;
use crate::value::Value;

pub(crate) const FUNCTIONS: &[Function] = &[
    Function {
        name: "path",
        native: |_, args| match args {
            [Value::Opaque(Opaque::Authorizer(_)), Value::Str(path)] if path.trim().is_empty() => {
                failed("path must not be empty")
            }
            [Value::Opaque(Opaque::Authorizer(subject)), Value::Str(path)] => {
                Ok(check(Check::Path { subject: subject.clone(), path: (**path).into() }))
            }
            _ => unsupported(),
        },
        overloads: &[
            "authorizer_path: kubernetes.authorization.Authorizer.(string) kubernetes.authorization.PathCheck",
        ],
    },
    Function {
        name: "group",
        native: |_, args| match args {
            [Value::Opaque(Opaque::Authorizer(subject)), Value::Str(group)] => Ok(check(Check::Resource {
                subject: subject.clone(),
                group: (**group).into(),
                resource: "".into(),
                subresource: "".into(),
                namespace: "".into(),
                name: "".into(),
                field_selector: "".into(),
                label_selector: "".into(),
            })),
            _ => unsupported(),
        },
        overloads: &[
            "authorizer_group: kubernetes.authorization.Authorizer.(string) kubernetes.authorization.GroupCheck",
        ],
    },
    Function {
        name: "serviceAccount",
        native: |_, args| match args {
            [Value::Opaque(Opaque::Authorizer(_)), Value::Str(namespace), Value::Str(account)] => {
                if !name::dns1123_subdomain(account).is_empty() {
                    return failed("Invalid service account name");
                }
                if !name::dns1123_label(namespace).is_empty() {
                    return failed("Invalid service account namespace");
                }
                let (namespace, name) = ((**namespace).into(), (**account).into());
                Ok(Value::Opaque(Opaque::Authorizer(Subject::ServiceAccount { namespace, name })))
            }
            _ => unsupported(),
        },
        overloads: &["authorizer_serviceaccount: kubernetes.authorization.Authorizer.(string, string) \
             kubernetes.authorization.Authorizer"],
    },
    Function {
        name: "resource",
        native: |_, args| match args {
            [Value::Opaque(Opaque::Check(_)), Value::Str(text)] if text.trim().is_empty() => {
                failed("resource must not be empty")
            }
            _ => refine(args, |check, text| {
                if let Check::Resource { resource, .. } = check {
                    *resource = text;
                }
            }),
        },
        overloads: &[
            "groupcheck_resource: kubernetes.authorization.GroupCheck.(string) kubernetes.authorization.ResourceCheck",
        ],
    },
    Function {
        name: "subresource",
        native: |_, args| {
            refine(args, |check, text| {
                if let Check::Resource { subresource, .. } = check {
                    *subresource = text;
                }
            })
        },
        overloads: &["resourcecheck_subresource: kubernetes.authorization.ResourceCheck.(string) \
             kubernetes.authorization.ResourceCheck"],
    },
    Function {
        name: "namespace",
        native: |_, args| {
            refine(args, |check, text| {
                if let Check::Resource { namespace, .. } = check {
                    *namespace = text;
                }
            })
        },
        overloads: &["resourcecheck_namespace: kubernetes.authorization.ResourceCheck.(string) \
             kubernetes.authorization.ResourceCheck"],
    },
    Function {
        name: "name",
        native: |_, args| {
            refine(args, |check, text| {
                if let Check::Resource { name, .. } = check {
                    *name = text;
                }
            })
        },
        overloads: &[
            "resourcecheck_name: kubernetes.authorization.ResourceCheck.(string) kubernetes.authorization.ResourceCheck",
        ],
    },
    Function {
        name: "fieldSelector",
        native: |_, args| {
            refine(args, |check, text| {
                if let Check::Resource { field_selector, .. } = check {
                    *field_selector = text;
                }
            })
        },
        overloads: &["authorizer_fieldselector: kubernetes.authorization.ResourceCheck.(string) \
             kubernetes.authorization.ResourceCheck"],
    },
    Function {
        name: "labelSelector",
        native: |_, args| {
            refine(args, |check, text| {
                if let Check::Resource { label_selector, .. } = check {
                    *label_selector = text;
                }
            })
        },
        overloads: &["authorizer_labelselector: kubernetes.authorization.ResourceCheck.(string) \
             kubernetes.authorization.ResourceCheck"],
    },
    Function {
        name: "check",
        native: |run, args| match args {
            [Value::Opaque(Opaque::Check(check)), Value::Str(verb)] => {
                let decision = match run.authorizer {
                    Some(authorizer) => authorizer.decide(check, verb),
                    None => Decision { error: "no authorizer is configured".into(), ..Decision::default() },
                };
                Ok(Value::Opaque(Opaque::Decision(Arc::new(decision))))
            }
            _ => unsupported(),
        },
        overloads: &[
            "pathcheck_check: kubernetes.authorization.PathCheck.(string) kubernetes.authorization.Decision",
            "resourcecheck_check: kubernetes.authorization.ResourceCheck.(string) kubernetes.authorization.Decision",
        ],
    },
    Function {
        name: "allowed",
        native: |_, args| decided(args, |decision| Value::Bool(decision.allowed)),
        overloads: &["decision_allowed: kubernetes.authorization.Decision.() bool"],
    },
    Function {
        name: "reason",
        native: |_, args| decided(args, |decision| Value::text(&*decision.reason)),
        overloads: &["decision_reason: kubernetes.authorization.Decision.() string"],
    },
    Function {
        name: "errored",
        native: |_, args| decided(args, |decision| Value::Bool(!decision.error.is_empty())),
        overloads: &["decision_errored: kubernetes.authorization.Decision.() bool"],
    },
    Function {
        name: "error",
        native: |_, args| decided(args, |decision| Value::text(&*decision.error)),
        overloads: &["decision_error: kubernetes.authorization.Decision.() string"],
    },
];

fn check<'a>(check: Check) -> Value<'a> {
    Value::Opaque(Opaque::Check(Arc::new(check)))
}

fn refine<'a>(args: &[Value<'a>], set: fn(&mut Check, Box<str>)) -> Result<Value<'a>, EvalError> {
    match args {
        [Value::Opaque(Opaque::Check(base)), Value::Str(text)] => {
            let mut refined = (**base).clone();
            set(&mut refined, (**text).into());
            Ok(check(refined))
        }
        _ => unsupported(),
    }
}

fn decided<'a>(args: &[Value<'a>], get: fn(&Decision) -> Value<'a>) -> Result<Value<'a>, EvalError> {
    match args {
        [Value::Opaque(Opaque::Decision(decision))] => Ok(get(decision)),
        _ => unsupported(),
    }
}
