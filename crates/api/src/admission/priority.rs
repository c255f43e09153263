//! `Priority`: a pod's priority is what its class says.

use async_trait::async_trait;
use skiff_object::{Tree, json};

use super::{Attributes, Operation, Plugin};
use crate::errors::{ApiError, ApiResult};
use crate::meta;
use crate::server::ApiServer;

/// See the [module](self).
pub struct Priority;

const GROUP: &str = "scheduling.k8s.io";
const PREEMPT: &str = "PreemptLowerPriority";

/// What a class gives.
struct Class {
    name: String,
    value: i64,
    policy: String,
}

#[async_trait]
impl Plugin for Priority {
    fn name(&self) -> &'static str {
        "Priority"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        match attributes.operation {
            Operation::Create => attributes.is("", "pods") || attributes.is(GROUP, "priorityclasses"),
            Operation::Update => attributes.is("", "pods") || attributes.is(GROUP, "priorityclasses"),
            _ => false,
        }
    }

    async fn mutate(
        &self,
        server: &ApiServer,
        attributes: &Attributes<'_>,
        pod: &mut Tree,
        old: Option<&Tree>,
    ) -> ApiResult<()> {
        if !attributes.is("", "pods") {
            return Ok(());
        }
        if let Some(old) = old.filter(|_| attributes.operation == Operation::Update) {
            // A client that does not know of priorities sends none; that takes nothing away.
            for field in ["priority", "preemptionPolicy"] {
                let path: [&'static str; 2] = ["spec", field];
                if pod.at(&path).is_none_or(Tree::is_null)
                    && let Some(before) = old.at(&path).filter(|before| !before.is_null())
                {
                    pod.set(&path, before.clone());
                }
            }
            return Ok(());
        }
        let forbidden = |why: String| Err(ApiError::forbidden(attributes.subject.resource(), attributes.name, &why));
        let wanted = pod.str_at(&["spec", "priorityClassName"]).to_owned();
        let class = if wanted.is_empty() {
            global_default(server).await?
        } else {
            let Some(stored) = server.collection(GROUP, "priorityclasses").known_get("", &wanted).await? else {
                return forbidden(format!("no PriorityClass with name {wanted} was found"));
            };
            read(&json::decode_untyped(&stored.value).map_err(ApiError::internal)?)
        };
        let given = pod.int_at(&["spec", "priority"]);
        if let Some(given) = given.filter(|given| *given != class.value) {
            return forbidden(format!(
                "the integer value of priority ({given}) must not be provided in pod spec; priority admission \
                 controller computed {} from the given PriorityClass name",
                class.value
            ));
        }
        pod.set(&["spec", "priority"], class.value);
        if !class.name.is_empty() {
            pod.set(&["spec", "priorityClassName"], class.name);
        }
        let policy = pod.str_at(&["spec", "preemptionPolicy"]);
        if !policy.is_empty() && policy != class.policy {
            return forbidden(format!(
                "the string value of PreemptionPolicy ({policy}) must not be provided in pod spec; priority admission \
                 controller computed {} from the given PriorityClass name",
                class.policy
            ));
        }
        pod.set(&["spec", "preemptionPolicy"], class.policy);
        Ok(())
    }

    async fn validate(
        &self,
        server: &ApiServer,
        attributes: &Attributes<'_>,
        class: &Tree,
        _old: Option<&Tree>,
    ) -> ApiResult<()> {
        if !attributes.is(GROUP, "priorityclasses") || class.bool_at(&["globalDefault"]) != Some(true) {
            return Ok(());
        }
        let default = global_default(server).await?;
        if default.name.is_empty() || default.name == meta::name(class) {
            return Ok(());
        }
        Err(ApiError::forbidden(
            attributes.subject.resource(),
            attributes.name,
            &format!("PriorityClass {} is already marked as default. Only one default can exist", default.name),
        ))
    }
}

fn read(class: &Tree) -> Class {
    let policy = class.str_at(&["preemptionPolicy"]);
    Class {
        name: meta::name(class).to_owned(),
        value: class.int_at(&["value"]).unwrap_or(0),
        policy: if policy.is_empty() { PREEMPT } else { policy }.to_owned(),
    }
}

/// The class of pods that name none: of several defaults the lowest counts.
async fn global_default(server: &ApiServer) -> ApiResult<Class> {
    let mut found: Option<Class> = None;
    for item in server.collection(GROUP, "priorityclasses").known_list("").await? {
        let class = json::decode_untyped(&item.stored.value).map_err(ApiError::internal)?;
        if class.bool_at(&["globalDefault"]) == Some(true) {
            let class = read(&class);
            if found.as_ref().is_none_or(|best| class.value < best.value) {
                found = Some(class);
            }
        }
    }
    Ok(found.unwrap_or_else(|| Class { name: String::new(), value: 0, policy: PREEMPT.to_owned() }))
}
