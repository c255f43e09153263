//! What must hold for probes and the hooks of a container's life.

use skiff_object::errors::{BadValue, FieldError};
use skiff_object::path::Path;
use skiff_object::{Tree, name};

use crate::checks::{Found, counts, given, invalid, only, port, port_in_range, positive, required, within};

/// Hooks run when a container starts and before it stops.
pub(super) fn lifecycle(found: &mut Found, container: &Tree, spec: &Tree, path: Path<'_>) {
    let grace = spec.int_at(&["terminationGracePeriodSeconds"]).unwrap_or(0);
    within(container, "lifecycle", path, |lifecycle, path| {
        for hook in ["postStart", "preStop"] {
            if let Some(action) = given(lifecycle, hook) {
                handler(found, action, Some(grace), path.child(hook));
            }
        }
        let signal = lifecycle.str_at(&["stopSignal"]);
        if !signal.is_empty() {
            let path = path.child("stopSignal");
            match spec.str_at(&["os", "name"]) {
                "" => {
                    let why = "may not be set for containers with empty `spec.os.name`";
                    found.push(FieldError::forbidden(path, why));
                }
                "windows" if !matches!(signal, "SIGKILL" | "SIGTERM") => {
                    found.push(FieldError::not_supported(path, signal, &["SIGKILL", "SIGTERM"]));
                }
                _ => {}
            }
        }
    });
}

/// The three probes of a container.
pub(super) fn probes(found: &mut Found, container: &Tree, path: Path<'_>) {
    for field in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let Some(probe) = given(container, field) else { continue };
        let path = path.child(field);
        handler(found, probe, None, path);
        let numbers =
            ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"];
        counts(found, probe, &numbers, path);
        positive(found, probe, "terminationGracePeriodSeconds", path);
        if field == "readinessProbe" {
            if let Some(seconds) = given(probe, "terminationGracePeriodSeconds") {
                let why = "must not be set for readinessProbes";
                let path = path.child("terminationGracePeriodSeconds");
                found.push(FieldError::invalid(path, BadValue::from(seconds), why));
            }
        } else if let Some(number) = probe.int_at(&["successThreshold"]).filter(|number| *number != 1) {
            found.push(FieldError::invalid(path.child("successThreshold"), number, "must be 1"));
        }
    }
}

/// One action; `grace` is how long a container has to end, when the action is a hook.
fn handler(found: &mut Found, handler: &Tree, grace: Option<i64>, path: Path<'_>) {
    let kinds: &[&str] = if grace.is_some() {
        &["exec", "httpGet", "tcpSocket", "sleep"]
    } else {
        &["exec", "httpGet", "tcpSocket", "grpc"]
    };
    let mut count = 0;
    for kind in kinds {
        let Some(action) = given(handler, kind) else { continue };
        let path = path.child(kind);
        count += 1;
        if count > 1 {
            found.push(FieldError::forbidden(path, "may not specify more than 1 handler type"));
            continue;
        }
        match *kind {
            "exec" if action.list_at(&["command"]).is_empty() => {
                found.push(FieldError::required(path.child("command"), ""));
            }
            "httpGet" => http(found, action, path),
            "tcpSocket" => port(found, action.get("port"), path.child("port")),
            "grpc" => port_in_range(found, action, "port", path),
            "sleep" => {
                let grace = grace.unwrap_or(0);
                let seconds = action.int_at(&["seconds"]).unwrap_or(0);
                if seconds < 0 || seconds > grace {
                    let why = format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
                    found.push(FieldError::invalid(path, seconds, why));
                }
            }
            _ => {}
        }
    }
    if count == 0 {
        found.push(FieldError::required(path, "must specify a handler type"));
    }
}

fn http(found: &mut Found, action: &Tree, path: Path<'_>) {
    required(found, action, "path", path);
    port(found, action.get("port"), path.child("port"));
    only(found, action, "scheme", path, &["HTTP", "HTTPS"]);
    let headers = path.child("httpHeaders");
    for header in action.list_at(&["httpHeaders"]) {
        let text = header.str_at(&["name"]);
        invalid(found, headers, text, name::http_header_name(text));
    }
}
