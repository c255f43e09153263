//! Requests that are answered and not stored: who am I, may I, who is this.

use http::{Response, StatusCode};
use skiff_kinds::Kind;
use skiff_object::selector::field;
use skiff_object::{Map, Tree};

use crate::admission::exchanged;
use crate::authn::UserInfo;
use crate::authz::{self, Attributes, Decision, Target};
use crate::body::Body;
use crate::chain::Call;
use crate::errors::{ApiError, ApiResult};
use crate::meta;
use crate::negotiate::{self, Offer};
use crate::request::options::WriteOptions;
use crate::respond;
use crate::server::ApiServer;
use crate::subresources::binding;
use crate::verbs::Subject;
use crate::write::{self, Expected};

/// Whether a resource is answered and forgotten.
pub fn handles(kind: &dyn Kind) -> bool {
    let facts = kind.facts();
    !facts.is_stored()
        && (matches!(facts.group.as_str(), "authentication.k8s.io" | "authorization.k8s.io")
            || (facts.group == *"" && facts.plural == *"bindings"))
}

/// Answers a review.
///
/// # Errors
/// As any create; reading a review is 405.
pub async fn answer(server: &ApiServer, call: &mut Call, subject: &Subject) -> ApiResult<Response<Body>> {
    let facts = subject.kind.facts();
    if call.info.verb != "create" || call.info.path_names_object() || (facts.namespaced && subject.namespace.is_empty())
    {
        return Err(ApiError::method_not_allowed());
    }
    if facts.plural == *"bindings" {
        return binding::bind(server, call, subject).await;
    }
    let form = negotiate::accept(&call.headers, &call.query, Offer::PLAIN)?;
    let options = WriteOptions::parse(&call.query, "CreateOptions")?;
    let expected = Expected::of(subject.kind.as_ref());
    let mut review = write::decode_body(call, Offer::PLAIN, expected, options.field_validation).await?;
    let name = meta::name(&review).to_owned();
    exchanged::create(server, call, subject, &name, &options, &mut review).await?;
    match facts.plural.as_str() {
        "selfsubjectreviews" => review.set(&["status", "userInfo"], user_tree(&call.user)),
        "tokenreviews" => token_review(server, &mut review).await?,
        "selfsubjectaccessreviews" => {
            let user = call.user.clone();
            access_review(server, subject, &mut review, &user).await?;
        }
        "subjectaccessreviews" | "localsubjectaccessreviews" => {
            let user = named_user(subject, &review)?;
            if facts.namespaced {
                check_namespace(subject, &review)?;
            }
            access_review(server, subject, &mut review, &user).await?;
        }
        "selfsubjectrulesreviews" => rules_review(server, &mut review, &call.user)?,
        _ => return Err(ApiError::method_not_allowed()),
    }
    Ok(respond::tree(StatusCode::CREATED, &review, Some(facts.ty), subject.kind.schema(), form))
}

fn strings(items: &[String]) -> Tree {
    Tree::List(items.iter().map(|item| Tree::from(item.as_str())).collect())
}

/// `UserInfo` as clients see it.
pub fn user_tree(user: &UserInfo) -> Tree {
    let mut tree = Map::new();
    tree.insert("username", user.name.as_str());
    if !user.uid.is_empty() {
        tree.insert("uid", user.uid.as_str());
    }
    if !user.groups.is_empty() {
        tree.insert("groups", strings(&user.groups));
    }
    if !user.extra.is_empty() {
        let extra: Map = user.extra.iter().map(|(key, values)| (key.clone().into(), strings(values))).collect();
        tree.insert("extra", Tree::Map(extra));
    }
    Tree::Map(tree)
}

async fn token_review(server: &ApiServer, review: &mut Tree) -> ApiResult<()> {
    let token = review.str_at(&["spec", "token"]).to_owned();
    if token.is_empty() {
        return Err(ApiError::bad_request("token is required for TokenReview in authentication"));
    }
    let audiences: Vec<String> =
        review.list_at(&["spec", "audiences"]).iter().filter_map(Tree::as_str).map(str::to_owned).collect();
    let audiences = if audiences.is_empty() { server.tokens.api_audiences().to_vec() } else { audiences };
    review.set(&["status"], Tree::map());
    match server.authn.identify(server, &token, &audiences).await {
        Ok(identified) => {
            review.set(&["status", "authenticated"], true);
            review.set(&["status", "user"], user_tree(&identified.user));
            if !identified.audiences.is_empty() {
                review.set(&["status", "audiences"], strings(&identified.audiences));
            }
        }
        Err(error) => {
            review.set(&["status", "user"], Tree::map());
            review.set(&["status", "error"], error.to_string());
        }
    }
    Ok(())
}

fn invalid(subject: &Subject, field: &str, message: &str) -> ApiError {
    ApiError::invalid_field(subject.kind_name(), "", "FieldValueInvalid", field, message.to_owned())
}

/// The user that a review asks about.
fn named_user(subject: &Subject, review: &Tree) -> ApiResult<UserInfo> {
    let list = |path: &[&str]| -> Vec<String> {
        review.list_at(path).iter().filter_map(Tree::as_str).map(str::to_owned).collect()
    };
    let user = UserInfo {
        name: review.str_at(&["spec", "user"]).to_owned(),
        uid: review.str_at(&["spec", "uid"]).to_owned(),
        groups: list(&["spec", "groups"]),
        extra: review
            .at(&["spec", "extra"])
            .and_then(Tree::as_map)
            .into_iter()
            .flat_map(Map::iter)
            .map(|(key, values)| {
                let values = values.as_list().unwrap_or(&[]);
                (key.as_str().to_owned(), values.iter().filter_map(Tree::as_str).map(str::to_owned).collect())
            })
            .collect(),
    };
    if user.name.is_empty() && user.groups.is_empty() {
        return Err(invalid(
            subject,
            "spec.user",
            "Invalid value: \"\": at least one of user or group must be specified",
        ));
    }
    Ok(user)
}

fn check_namespace(subject: &Subject, review: &Tree) -> ApiResult<()> {
    let namespace = review.str_at(&["spec", "resourceAttributes", "namespace"]);
    if namespace == subject.namespace {
        return Ok(());
    }
    Err(ApiError::bad_request(format!("spec.resourceAttributes.namespace must match namespace: {}", subject.namespace)))
}

async fn access_review(server: &ApiServer, subject: &Subject, review: &mut Tree, user: &UserInfo) -> ApiResult<()> {
    let authorizer = server.config.authorizer.as_ref();
    let present = |field: &str| review.at(&["spec", field]).filter(|tree| !tree.is_null());
    let (resource, path) = (present("resourceAttributes"), present("nonResourceAttributes"));
    let selectors = resource.map(selectors).unwrap_or_default();
    let decision = match (resource, path) {
        (Some(resource), None) => {
            let target = Target::Resource {
                group: resource.str_at(&["group"]),
                version: resource.str_at(&["version"]),
                resource: resource.str_at(&["resource"]),
                subresource: resource.str_at(&["subresource"]),
                namespace: resource.str_at(&["namespace"]),
                name: resource.str_at(&["name"]),
            };
            let attributes = Attributes::new(user, resource.str_at(&["verb"]), target);
            authz::decide(authorizer, &Attributes { selectors: selectors.as_ref(), ..attributes }).await
        }
        (None, Some(path)) => {
            let target = Target::Path(path.str_at(&["path"]));
            authz::decide(authorizer, &Attributes::new(user, path.str_at(&["verb"]), target)).await
        }
        (Some(_), Some(_)) => {
            return Err(invalid(
                subject,
                "spec.nonResourceAttributes",
                "Invalid value: cannot be specified in combination with resourceAttributes",
            ));
        }
        (None, None) => {
            return Err(invalid(
                subject,
                "spec.resourceAttributes",
                "Invalid value: null: exactly one of nonResourceAttributes or resourceAttributes must be specified",
            ));
        }
    };
    review.set(&["status"], Tree::map());
    review.set(&["status", "allowed"], decision.is_allowed());
    if matches!(decision, Decision::Deny(_)) {
        review.set(&["status", "denied"], true);
    }
    if !decision.reason().is_empty() {
        review.set(&["status", "reason"], decision.reason());
    }
    Ok(())
}

/// What a review limits a list to. Requirements that no selector has a form for are left out, which
/// asks for more and not for less (upstream's rule).
fn selectors(resource: &Tree) -> Option<authz::Selectors> {
    let text = |field: &str, term: fn(&str, &str, &[&str]) -> Option<String>| {
        let raw = resource.str_at(&[field, "rawSelector"]);
        if !raw.is_empty() {
            return raw.to_owned();
        }
        let terms = resource.list_at(&[field, "requirements"]).iter().filter_map(|one| {
            let values: Vec<&str> = one.list_at(&["values"]).iter().filter_map(Tree::as_str).collect();
            term(one.str_at(&["key"]), one.str_at(&["operator"]), &values)
        });
        terms.collect::<Vec<_>>().join(",")
    };
    let fields = text("fieldSelector", |key, operator, values| match (operator, values) {
        ("In", [value]) => Some(format!("{key}={}", field::escape(value))),
        ("NotIn", [value]) => Some(format!("{key}!={}", field::escape(value))),
        _ => None,
    });
    let labels = text("labelSelector", |key, operator, values| match operator {
        "In" => Some(format!("{key} in ({})", values.join(","))),
        "NotIn" => Some(format!("{key} notin ({})", values.join(","))),
        "Exists" => Some(key.to_owned()),
        "DoesNotExist" => Some(format!("!{key}")),
        _ => None,
    });
    authz::Selectors::of_texts(&fields, &labels)
}

fn rules_review(server: &ApiServer, review: &mut Tree, user: &UserInfo) -> ApiResult<()> {
    let namespace = review.str_at(&["spec", "namespace"]);
    if namespace.is_empty() {
        return Err(ApiError::bad_request("no namespace on request"));
    }
    let rules = if user.in_group(crate::authn::MASTERS) {
        authz::AllowAll.rules_of_everybody()
    } else {
        server.config.authorizer.rules(user, namespace)
    };
    let resource = rules.resource.iter().map(|rule| {
        let mut tree = Map::new();
        tree.insert("verbs", strings(&rule.verbs));
        tree.insert("apiGroups", strings(&rule.api_groups));
        tree.insert("resources", strings(&rule.resources));
        if !rule.resource_names.is_empty() {
            tree.insert("resourceNames", strings(&rule.resource_names));
        }
        Tree::Map(tree)
    });
    let non_resource = rules.non_resource.iter().map(|rule| {
        let mut tree = Map::new();
        tree.insert("verbs", strings(&rule.verbs));
        tree.insert("nonResourceURLs", strings(&rule.urls));
        Tree::Map(tree)
    });
    let (resource, non_resource) = (resource.collect::<Vec<_>>(), non_resource.collect::<Vec<_>>());
    review.set(&["status", "resourceRules"], resource);
    review.set(&["status", "nonResourceRules"], non_resource);
    review.set(&["status", "incomplete"], rules.incomplete);
    if !rules.evaluation_error.is_empty() {
        review.set(&["status", "evaluationError"], rules.evaluation_error.as_str());
    }
    Ok(())
}
