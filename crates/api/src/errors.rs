//! Every way a request can fail, and the one conversion to `Status`.
//!
//! Texts and reasons are upstream's: clients and their users match on them
//! (`k8s.io/apimachinery/pkg/api/errors`).

use std::fmt;

use http::StatusCode;
use skiff_object::{Map, Tree};

/// A failure, on its way to a `Status` object.
#[derive(Clone, Debug)]
pub struct ApiError {
    /// The HTTP status and `Status.code`.
    pub code: StatusCode,
    /// `Status.reason`.
    pub reason: &'static str,
    /// `Status.message`.
    pub message: String,
    /// `Status.details`, when there is anything in it.
    pub details: Option<Box<Details>>,
    /// `ListMeta.continue`: only an expired list hands one out.
    pub continue_token: Option<String>,
    /// The whole `Status`, when somebody else made it: a webhook, an aggregated server.
    pub given: Option<Box<Tree>>,
}

/// `StatusDetails`.
#[derive(Clone, Debug, Default)]
pub struct Details {
    /// The object's name.
    pub name: String,
    /// The API group.
    pub group: String,
    /// The resource, or the kind where upstream says the kind.
    pub kind: String,
    /// The object's uid.
    pub uid: String,
    /// One per field error.
    pub causes: Vec<Cause>,
    /// When to try again; 0 for not said.
    pub retry_after_seconds: i64,
}

/// `StatusCause`.
#[derive(Clone, Debug, Default)]
pub struct Cause {
    /// `FieldValueRequired`, …
    pub reason: String,
    /// What is wrong, without the field.
    pub message: String,
    /// The field's path.
    pub field: String,
}

/// A group and a resource (or kind) as upstream writes them in messages: `deployments.apps`.
#[derive(Clone, Copy, Debug)]
pub struct Qualified<'a> {
    /// The API group, empty for the core group.
    pub group: &'a str,
    /// The plural resource name or the kind.
    pub name: &'a str,
}

impl fmt::Display for Qualified<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)?;
        if !self.group.is_empty() {
            write!(f, ".{}", self.group)?;
        }
        Ok(())
    }
}

/// The result of a verb.
pub type ApiResult<T> = Result<T, ApiError>;

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ApiError {}

impl ApiError {
    /// An error without details.
    pub fn new(code: StatusCode, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: None, continue_token: None, given: None }
    }

    /// A `Status` that somebody else made, as it is; a code that is no failure becomes 500.
    pub fn given(status: Tree) -> Self {
        let code = status.int_at(&["code"]).and_then(|code| StatusCode::from_u16(u16::try_from(code).ok()?).ok());
        let code = code.filter(|code| code.as_u16() >= 400).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let message = status.str_at(&["message"]).to_owned();
        Self { given: Some(Box::new(status)), ..Self::new(code, "", message) }
    }

    fn about(mut self, resource: Qualified<'_>, name: &str) -> Self {
        self.details = Some(Box::new(Details {
            name: name.to_owned(),
            group: resource.group.to_owned(),
            kind: resource.name.to_owned(),
            ..Details::default()
        }));
        self
    }

    /// Adds a cause.
    pub fn with_cause(mut self, reason: &str, message: impl Into<String>, field: &str) -> Self {
        self.details.get_or_insert_default().causes.push(Cause {
            reason: reason.to_owned(),
            message: message.into(),
            field: field.to_owned(),
        });
        self
    }

    /// Says when to try again.
    pub fn retry_after(mut self, seconds: i64) -> Self {
        self.details.get_or_insert_default().retry_after_seconds = seconds;
        self
    }

    /// Whether this is a `Conflict`, which a patch may answer by trying again.
    pub fn is_conflict(&self) -> bool {
        self.reason == "Conflict"
    }

    /// Whether this is a `NotFound`.
    pub fn is_not_found(&self) -> bool {
        self.reason == "NotFound"
    }

    /// Whether this is an `AlreadyExists`.
    pub fn is_already_exists(&self) -> bool {
        self.reason == "AlreadyExists"
    }

    /// 404 for an object.
    pub fn not_found(resource: Qualified<'_>, name: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "NotFound", format!("{resource} \"{name}\" not found")).about(resource, name)
    }

    /// 404 for a path that leads nowhere.
    pub fn no_such_path() -> Self {
        Self::new(StatusCode::NOT_FOUND, "NotFound", "the server could not find the requested resource")
    }

    /// 409: create of something that is there.
    pub fn already_exists(resource: Qualified<'_>, name: &str) -> Self {
        Self::new(StatusCode::CONFLICT, "AlreadyExists", format!("{resource} \"{name}\" already exists"))
            .about(resource, name)
    }

    /// 409: a write that lost a race or whose precondition does not hold.
    pub fn conflict(resource: Qualified<'_>, name: &str, why: &str) -> Self {
        Self::new(
            StatusCode::CONFLICT,
            "Conflict",
            format!("Operation cannot be fulfilled on {resource} \"{name}\": {why}"),
        )
        .about(resource, name)
    }

    /// The conflict of a stale resourceVersion.
    pub fn stale(resource: Qualified<'_>, name: &str) -> Self {
        Self::conflict(
            resource,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// 400.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequest", message)
    }

    /// 401.
    pub fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized")
    }

    /// 403 for a resource.
    pub fn forbidden(resource: Qualified<'_>, name: &str, why: &str) -> Self {
        let message = if name.is_empty() {
            format!("{resource} is forbidden: {why}")
        } else {
            format!("{resource} \"{name}\" is forbidden: {why}")
        };
        Self::new(StatusCode::FORBIDDEN, "Forbidden", message).about(resource, name)
    }

    /// 403 for a path that is no resource.
    pub fn forbidden_path(why: &str) -> Self {
        let mut error = Self::new(StatusCode::FORBIDDEN, "Forbidden", format!("forbidden: {why}"));
        error.details = Some(Box::default());
        error
    }

    /// 422: every field error at once. `kind` is the kind, not the resource.
    pub fn invalid(kind: Qualified<'_>, name: &str, causes: Vec<Cause>) -> Self {
        let each: Vec<String> = causes.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect();
        let all = match each.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let mut error =
            Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", format!("{kind} \"{name}\" is invalid: {all}"))
                .about(kind, name);
        error.details.get_or_insert_default().causes = causes;
        error
    }

    /// 422 with one field error.
    pub fn invalid_field(kind: Qualified<'_>, name: &str, reason: &str, field: &str, message: String) -> Self {
        Self::invalid(kind, name, vec![Cause { reason: reason.to_owned(), message, field: field.to_owned() }])
    }

    /// 405 for a verb that the resource does not have.
    pub fn verb_not_allowed(resource: Qualified<'_>, verb: &str) -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "MethodNotAllowed",
            format!("{verb} is not supported on resources of kind \"{resource}\""),
        )
        .about(resource, "")
    }

    /// 405 for a method that the path does not have.
    pub fn method_not_allowed() -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        )
    }

    /// 406.
    pub fn not_acceptable(accepted: &[&str]) -> Self {
        Self::new(
            StatusCode::NOT_ACCEPTABLE,
            "NotAcceptable",
            format!("only the following media types are accepted: {}", accepted.join(", ")),
        )
    }

    /// 415.
    pub fn unsupported_media_type(accepted: &[&str]) -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "UnsupportedMediaType",
            format!(
                "the body of the request was in an unknown format - accepted media types include: {}",
                accepted.join(", ")
            ),
        )
    }

    /// 413.
    pub fn too_large(limit: usize) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "RequestEntityTooLarge",
            format!("Request entity too large: limit is {limit}"),
        )
    }

    /// 410.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(StatusCode::GONE, "Expired", message)
    }

    /// 504: the resourceVersion asked for has not happened.
    pub fn future_version(requested: u64, current: u64) -> Self {
        Self::new(
            StatusCode::GATEWAY_TIMEOUT,
            "Timeout",
            format!("Too large resource version: {requested}, current: {current}"),
        )
        .with_cause("ResourceVersionTooLarge", "Too large resource version", "")
        .retry_after(1)
    }

    /// 504.
    pub fn timeout(message: impl fmt::Display) -> Self {
        let mut error = Self::new(StatusCode::GATEWAY_TIMEOUT, "Timeout", format!("Timeout: {message}"));
        error.details = Some(Box::default());
        error
    }

    /// 429.
    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: i64) -> Self {
        let mut error = Self::new(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", message);
        error.details = Some(Box::new(Details { retry_after_seconds, ..Details::default() }));
        error
    }

    /// 503.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", message)
    }

    /// 500.
    pub fn internal(message: impl fmt::Display) -> Self {
        let mut error = Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "InternalError",
            format!("Internal error occurred: {message}"),
        );
        error.details = Some(Box::new(Details {
            causes: vec![Cause { message: message.to_string(), ..Cause::default() }],
            ..Details::default()
        }));
        error
    }

    /// The `Status` object.
    pub fn to_status(&self) -> Tree {
        if let Some(given) = &self.given {
            return Tree::clone(given);
        }
        let mut status = Map::new();
        status.insert("kind", "Status");
        status.insert("apiVersion", "v1");
        let mut metadata = Map::new();
        if let Some(token) = &self.continue_token {
            metadata.insert("continue", token.as_str());
        }
        status.insert("metadata", Tree::Map(metadata));
        status.insert("status", "Failure");
        status.insert("message", self.message.as_str());
        if !self.reason.is_empty() {
            status.insert("reason", self.reason);
        }
        if let Some(details) = &self.details {
            status.insert("details", details.to_tree());
        }
        status.insert("code", i64::from(self.code.as_u16()));
        Tree::Map(status)
    }
}

impl Details {
    fn to_tree(&self) -> Tree {
        let mut tree = Map::new();
        for (key, value) in [("name", &self.name), ("group", &self.group), ("kind", &self.kind), ("uid", &self.uid)] {
            if !value.is_empty() {
                tree.insert(key, value.as_str());
            }
        }
        if !self.causes.is_empty() {
            tree.insert("causes", self.causes.iter().map(Cause::to_tree).collect::<Vec<_>>());
        }
        if self.retry_after_seconds != 0 {
            tree.insert("retryAfterSeconds", self.retry_after_seconds);
        }
        Tree::Map(tree)
    }
}

impl Cause {
    fn to_tree(&self) -> Tree {
        let mut tree = Map::new();
        for (key, value) in [("reason", &self.reason), ("message", &self.message), ("field", &self.field)] {
            if !value.is_empty() {
                tree.insert(key, value.as_str());
            }
        }
        Tree::Map(tree)
    }
}

/// The `Status` that answers a successful delete of an object that is gone at once.
pub fn deleted_status(resource: Qualified<'_>, name: &str, uid: &str) -> Tree {
    let mut status = success_status();
    let details = Details {
        name: name.to_owned(),
        group: resource.group.to_owned(),
        kind: resource.name.to_owned(),
        uid: uid.to_owned(),
        ..Details::default()
    };
    status.set(&["details"], details.to_tree());
    status
}

/// A bare `Status` that says success.
pub fn success_status() -> Tree {
    let mut status = Map::new();
    status.insert("kind", "Status");
    status.insert("apiVersion", "v1");
    status.insert("metadata", Tree::map());
    status.insert("status", "Success");
    Tree::Map(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEPLOYMENTS: Qualified<'_> = Qualified { group: "apps", name: "deployments" };
    const PODS: Qualified<'_> = Qualified { group: "", name: "pods" };

    #[test]
    fn messages_are_upstreams() {
        assert_eq!(ApiError::not_found(DEPLOYMENTS, "x").message, "deployments.apps \"x\" not found");
        assert_eq!(ApiError::already_exists(PODS, "x").message, "pods \"x\" already exists");
        assert_eq!(
            ApiError::stale(DEPLOYMENTS, "x").message,
            "Operation cannot be fulfilled on deployments.apps \"x\": the object has been modified; \
             please apply your changes to the latest version and try again"
        );
        assert_eq!(ApiError::forbidden(PODS, "", "no").message, "pods is forbidden: no");
        assert_eq!(ApiError::timeout("too late").message, "Timeout: too late");
    }

    #[test]
    fn one_field_error_stands_alone_and_several_in_brackets() {
        let cause =
            |field: &str| Cause { reason: String::new(), message: "Required value".into(), field: field.into() };
        let kind = Qualified { group: "", name: "Pod" };
        assert_eq!(ApiError::invalid(kind, "x", vec![cause("a")]).message, "Pod \"x\" is invalid: a: Required value");
        assert_eq!(
            ApiError::invalid(kind, "x", vec![cause("a"), cause("b")]).message,
            "Pod \"x\" is invalid: [a: Required value, b: Required value]"
        );
    }
}
