//! `EventRateLimit`: events beyond what the administrator allows are turned away, so that a component
//! gone wild does not fill the store.

use std::collections::HashMap;

use async_trait::async_trait;
use http::StatusCode;
use parking_lot::Mutex;
use skiff_object::Tree;
use skiff_object::errors::{FieldError, message};
use tokio::time::Instant;

use super::{Attributes, Operation, Plugin};
use crate::errors::{ApiError, ApiResult};
use crate::server::ApiServer;

/// Who is remembered where the configuration does not say how many; upstream's.
const CACHE_DEFAULT: usize = 4_096;
/// The most that may be remembered: each is a small bucket and its key.
const CACHE_MAX: usize = 1 << 20;

/// What is counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    Server,
    Namespace,
    User,
    SourceAndObject,
}

impl Scope {
    const ALL: [(&'static str, Self); 4] = [
        ("Namespace", Self::Namespace),
        ("Server", Self::Server),
        ("SourceAndObject", Self::SourceAndObject),
        ("User", Self::User),
    ];

    fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, scope)| *scope == self).map_or("", |(name, _)| name)
    }

    /// What an event is counted under.
    fn key(self, attributes: &Attributes<'_>, event: &Tree) -> String {
        match self {
            Self::Server => String::new(),
            Self::Namespace => attributes.subject.namespace.clone(),
            Self::User => attributes.user.name.clone(),
            Self::SourceAndObject => [
                ["source", "component"].as_slice(),
                &["source", "host"],
                &["involvedObject", "kind"],
                &["involvedObject", "namespace"],
                &["involvedObject", "name"],
                &["involvedObject", "uid"],
                &["involvedObject", "apiVersion"],
            ]
            .map(|path| event.str_at(path))
            .concat(),
        }
    }
}

/// One line of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Limit {
    scope: Scope,
    per_second: u32,
    burst: u32,
    remembered: usize,
}

/// `Configuration` of `eventratelimit.admission.k8s.io/v1alpha1`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    limits: Vec<Limit>,
}

impl Settings {
    /// Reads the configuration.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn read(config: &Tree) -> Result<Self, String> {
        let mut errors = Vec::new();
        let names = Scope::ALL.map(|(name, _)| name);
        let mut limits = Vec::new();
        for (at, one) in config.list_at(&["limits"]).iter().enumerate() {
            let field = |name: &str| format!("limits[{at}].{name}");
            let ty = one.str_at(&["type"]);
            let scope = Scope::ALL.iter().find(|(name, _)| *name == ty).map(|(_, scope)| *scope);
            if scope.is_none() {
                errors.push(FieldError::not_supported(field("type"), ty, &names));
            }
            let mut positive = |name: &'static str| {
                let number = one.int_at(&[name]).unwrap_or(0);
                match u32::try_from(number) {
                    Ok(number) if number > 0 => number,
                    _ => {
                        errors.push(FieldError::invalid(field(name), number, "must be positive"));
                        0
                    }
                }
            };
            let (per_second, burst) = (positive("qps"), positive("burst"));
            let remembered = one.int_at(&["cacheSize"]).unwrap_or(0);
            if remembered < 0 {
                errors.push(FieldError::invalid(field("cacheSize"), remembered, "must not be negative"));
            }
            let remembered = usize::try_from(remembered).ok().filter(|size| *size > 0).unwrap_or(CACHE_DEFAULT);
            let remembered = remembered.min(CACHE_MAX);
            limits.extend(scope.map(|scope| Limit { scope, per_second, burst, remembered }));
        }
        let this = Self { limits };
        if !errors.is_empty() {
            return Err(message(&errors));
        }
        this.check().map(|()| this)
    }

    /// A limit there must be.
    ///
    /// # Errors
    /// When there is none.
    pub fn check(&self) -> Result<(), String> {
        if self.limits.is_empty() {
            return Err(message(&[FieldError::invalid("limits", "null", "must not be empty")]));
        }
        Ok(())
    }
}

/// See the [module](self).
pub struct EventRateLimit {
    limits: Vec<(Limit, Mutex<HashMap<String, Bucket>>)>,
}

impl EventRateLimit {
    /// With these limits.
    pub fn new(settings: &Settings) -> Self {
        Self { limits: settings.limits.iter().map(|limit| (limit.clone(), Mutex::default())).collect() }
    }
}

/// A bucket of tokens: one for each event that may come now.
#[derive(Clone, Copy)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Bucket {
    fn take(&mut self, limit: &Limit, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.tokens = (self.tokens + passed * f64::from(limit.per_second)).min(f64::from(limit.burst));
        self.at = now;
        let has = self.tokens >= 1.0;
        if has {
            self.tokens -= 1.0;
        }
        has
    }
}

/// Whether one more is allowed under this key. The one that was heard of longest ago is forgotten for a new one.
fn take(limit: &Limit, buckets: &mut HashMap<String, Bucket>, key: &str, now: Instant) -> bool {
    if let Some(bucket) = buckets.get_mut(key) {
        return bucket.take(limit, now);
    }
    if buckets.len() >= limit.remembered
        && let Some(oldest) = buckets.iter().min_by_key(|(_, bucket)| bucket.at).map(|(key, _)| key.clone())
    {
        buckets.remove(&oldest);
    }
    let full = Bucket { tokens: f64::from(limit.burst), at: now };
    buckets.entry(key.to_owned()).or_insert(full).take(limit, now)
}

#[async_trait]
impl Plugin for EventRateLimit {
    fn name(&self) -> &'static str {
        "EventRateLimit"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        // As upstream: only events of the core group, and only what will be stored.
        matches!(attributes.operation, Operation::Create | Operation::Update)
            && !attributes.dry_run
            && attributes.subject.subresource.is_empty()
            && attributes.exchanged() == ("v1", "Event")
    }

    async fn validate(
        &self,
        server: &ApiServer,
        attributes: &Attributes<'_>,
        event: &Tree,
        _old: Option<&Tree>,
    ) -> ApiResult<()> {
        let now = server.clock().instant();
        let mut refusals = Vec::new();
        for (limit, buckets) in &self.limits {
            let key = limit.scope.key(attributes, event);
            if !take(limit, &mut buckets.lock(), &key, now) {
                refusals.push(format!("limit reached on type {} for key {key}", limit.scope.name()));
            }
        }
        let why = match refusals.as_slice() {
            [] => return Ok(()),
            [one] => one.clone(),
            more => format!("[{}]", more.join(", ")),
        };
        Err(ApiError::new(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", format!("Too many requests: {why}")))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn tokens_come_back_and_the_oldest_key_is_forgotten() {
        let limit = Limit { scope: Scope::User, per_second: 1, burst: 2, remembered: 2 };
        let (mut buckets, start) = (HashMap::new(), Instant::now());
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut ask = |key: &str, seconds: u64| take(&limit, &mut buckets, key, at(seconds));
        assert_eq!([ask("a", 0), ask("a", 0), ask("a", 0)], [true, true, false]);
        assert_eq!([ask("a", 1), ask("a", 1)], [true, false]);
        assert_eq!([ask("b", 2), ask("c", 3)], [true, true]);
        // Its bucket is a new and full one.
        assert_eq!([ask("a", 3), ask("a", 3), ask("a", 3)], [true, true, false]);
        assert_eq!(buckets.len(), 2);
    }

    #[test]
    fn a_configuration_says_what_is_wrong_with_it() {
        let read = |text: &str| Settings::read(&skiff_object::yaml::decode_untyped(text.as_bytes()).unwrap());
        assert_eq!(read("{}").unwrap_err(), "limits: Invalid value: \"null\": must not be empty");
        let wrong = read("limits: [{type: Node, qps: 0, burst: 1}]").unwrap_err();
        assert_eq!(
            wrong,
            "[limits[0].type: Unsupported value: \"Node\": supported values: \"Namespace\", \"Server\", \
             \"SourceAndObject\", \"User\", limits[0].qps: Invalid value: 0: must be positive]"
        );
        assert!(read("limits: [{type: Server, qps: 5, burst: 10}]").is_ok());
    }
}
