//! `pods/log`, `exec`, `attach`, `portforward`: the kubelet answers, the server passes bytes on.

use std::sync::Arc;

use http::{Method, Response, StatusCode};
use skiff_object::Tree;

use crate::body::Body;
use crate::chain::Call;
use crate::errors::{ApiError, ApiResult, Qualified};
use crate::forward::{self, Outgoing, Upgrade};
use crate::meta;
use crate::proxy::Destination;
use crate::request::options;
use crate::respond;
use crate::server::ApiServer;
use crate::verbs::Subject;

const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";
const CONTAINER_LISTS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];

/// Connects a client to a container or to a pod.
///
/// # Errors
/// 400 when the pod has no node or the container is not one of its.
pub async fn connect(server: &Arc<ApiServer>, call: Call, subject: &Subject) -> ApiResult<Response<Body>> {
    let stored = subject.collection.get(&subject.namespace, &subject.name).await?;
    let stored = stored.ok_or_else(|| subject.not_found())?;
    let pod = respond::decode_stored(subject.kind.as_ref(), &stored.value)?;
    let node = pod.str_at(&["spec", "nodeName"]).to_owned();
    let log = subject.subresource == "log";
    let path = match subject.subresource.as_str() {
        "portforward" => format!("/portForward/{}/{}", subject.namespace, subject.name),
        verb => {
            let container = container(&pod, subject, &call.query)?;
            let base = if verb == "log" { "containerLogs" } else { verb };
            format!("/{base}/{}/{}/{container}", subject.namespace, subject.name)
        }
    };
    if log {
        check_log(&call.query, &subject.name)?;
    }
    if node.is_empty() {
        if log {
            return Ok(respond::text(StatusCode::OK, ""));
        }
        return Err(ApiError::bad_request(format!("pod {} does not have a host assigned", subject.name)));
    }
    let query = kubelet_query(&subject.subresource, &call.query);
    let target = if query.is_empty() { path } else { format!("{path}?{query}") };
    let method = if log { Method::GET } else { call.method.clone() };
    let outgoing = Outgoing {
        upgrade: if log { Upgrade::Welcome } else { Upgrade::Required },
        ..Outgoing::new(Destination::Kubelet { node }, method, target)
    };
    let mut response = forward::forward(server, call, outgoing).await?;
    if log && response.status() != StatusCode::OK {
        response = log_failure(subject, response).await?;
    }
    Ok(response)
}

/// A kubelet's plain-text failure as a `Status`.
async fn log_failure(subject: &Subject, response: Response<Body>) -> ApiResult<Response<Body>> {
    let code = response.status();
    let text = response.into_body().collect().await.map_err(ApiError::internal)?;
    let text = String::from_utf8_lossy(&text).trim().to_owned();
    if code == StatusCode::NOT_FOUND {
        return Err(ApiError::not_found(subject.resource(), &subject.name));
    }
    if code.is_server_error() {
        return Err(ApiError::internal(text));
    }
    Err(ApiError::bad_request(text))
}

fn names(pod: &Tree, list: &str) -> Vec<String> {
    pod.list_at(&["spec", list]).iter().map(|container| container.str_at(&["name"]).to_owned()).collect()
}

/// The container that is asked for, or the only one there is.
fn container(pod: &Tree, subject: &Subject, query: &str) -> ApiResult<String> {
    let wanted = options::first(query, "container").unwrap_or_default();
    let all: Vec<String> = CONTAINER_LISTS.iter().flat_map(|list| names(pod, list)).collect();
    if !wanted.is_empty() {
        if all.contains(&wanted) {
            return Ok(wanted);
        }
        return Err(ApiError::bad_request(format!("container {wanted} is not valid for pod {}", subject.name)));
    }
    if let Some(default) = meta::annotation(pod, DEFAULT_CONTAINER).filter(|name| all.iter().any(|one| one == name)) {
        return Ok(default.to_owned());
    }
    match names(pod, "containers").as_slice() {
        [one] if subject.subresource != "log" || all.len() == 1 => Ok(one.clone()),
        [] => Err(ApiError::bad_request(format!("a container name must be specified for pod {}", subject.name))),
        names => {
            let init = self::names(pod, "initContainers");
            let init = if init.is_empty() {
                String::new()
            } else {
                format!(" or one of the init containers: [{}]", init.join(" "))
            };
            Err(ApiError::bad_request(format!(
                "a container name must be specified for pod {}, choose one of: [{}]{init}",
                subject.name,
                names.join(" ")
            )))
        }
    }
}

/// The numbers among the log options are numbers.
fn check_log(query: &str, name: &str) -> ApiResult<()> {
    for (key, value) in options::pairs(query) {
        let least = match key.as_str() {
            "tailLines" => 0,
            "limitBytes" | "sinceSeconds" => 1,
            _ => continue,
        };
        let why = match value.parse::<i64>() {
            Err(_) => {
                return Err(ApiError::bad_request(format!("strconv.ParseInt: parsing {value:?}: invalid syntax")));
            }
            Ok(number) if number >= least => continue,
            Ok(_) if least == 0 => "must be greater than or equal to 0",
            Ok(_) => "must be greater than 0",
        };
        return Err(ApiError::invalid_field(
            Qualified { group: "", name: "PodLogOptions" },
            name,
            "FieldValueInvalid",
            &key,
            format!("Invalid value: {value}: {why}"),
        ));
    }
    Ok(())
}

/// The kubelet calls the streams of `exec` and `attach` by other names.
fn kubelet_query(subresource: &str, query: &str) -> String {
    if subresource == "log" {
        return query.to_owned();
    }
    let mut out = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let yes = !matches!(value, "false" | "0" | "False" | "FALSE");
        match key {
            "stdin" if yes => out.push("input=1".to_owned()),
            "stdout" if yes => out.push("output=1".to_owned()),
            "stderr" if yes => out.push("error=1".to_owned()),
            "tty" if yes => out.push("tty=1".to_owned()),
            "command" => out.push(format!("command={value}")),
            "ports" => out.push(format!("port={value}")),
            _ => {}
        }
    }
    out.join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_renamed_for_the_kubelet() {
        assert_eq!(
            kubelet_query("exec", "command=sh&command=-c&container=a&stdin=true&stdout=1&stderr=false&tty=true"),
            "command=sh&command=-c&input=1&output=1&tty=1"
        );
        assert_eq!(kubelet_query("portforward", "ports=80&ports=81"), "port=80&port=81");
        assert_eq!(kubelet_query("log", "follow=true"), "follow=true");
    }
}
