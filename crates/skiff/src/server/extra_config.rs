//! `--extra-config apiserver.FLAG=VALUE`: kube-apiserver's flags, as far as they mean something here.
//!
//! One row of [`FLAGS`] for each flag: its name, what its value looks like, what it does, and the
//! function that puts a value into the server's [`Config`]. Files are read when the flag is put in,
//! so that a bad one stops the start. `docs/flags.md` is made from the table.

mod identity;

use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use skiff_api::limits::Limits;
use skiff_api::{Config, audit};

pub use identity::{authorization_file, authorizers, kubeconfig as kubeconfig_target};

/// One flag of kube-apiserver.
struct Flag {
    name: &'static str,
    /// What a value looks like: `DURATION`, `FILE`, ….
    value: &'static str,
    help: &'static str,
    /// Called once for each time the flag is given, in order.
    set: fn(&mut Config, &str) -> Result<()>,
}

/// Every flag that is taken, by name.
const FLAGS: &[Flag] = &[
    Flag {
        name: "admission-control-config-file",
        value: "FILE",
        help: "The AdmissionConfiguration: what single admission plugins are told.",
        set: |config, value| {
            let folder = std::path::Path::new(value).parent().unwrap_or(std::path::Path::new("."));
            skiff_api::admission::configuration::read(&mut config.admission, &read(value)?, folder)
                .map_err(|why| anyhow!("{value}: {why}"))
        },
    },
    Flag {
        name: "anonymous-auth",
        value: "BOOL",
        help: "Whether requests without credentials count as `system:anonymous`.",
        set: |config, value| boolean(value).map(|value| config.anonymous = value),
    },
    Flag {
        name: "api-audiences",
        value: "LIST",
        help: "Who a token must be for to be taken; the issuer when nothing is said.",
        set: |config, value| {
            config.authn.api_audiences = identity::list(value);
            Ok(())
        },
    },
    Flag {
        name: "audit-log-batch-buffer-size",
        value: "NUMBER",
        help: "Events that wait for the log in batch mode.",
        set: |config, value| positive(value).map(|value| config.audit.log_delivery.batching.buffer = value),
    },
    Flag {
        name: "audit-log-batch-max-size",
        value: "NUMBER",
        help: "Events that are written to the log together in batch mode.",
        set: |config, value| positive(value).map(|value| config.audit.log_delivery.batching.size_max = value),
    },
    Flag {
        name: "audit-log-batch-max-wait",
        value: "DURATION",
        help: "How long a batch for the log waits for more events.",
        set: |config, value| duration(value).map(|value| config.audit.log_delivery.batching.wait_max = value),
    },
    Flag {
        name: "audit-log-compress",
        value: "BOOL",
        help: "Whether rotated audit logs are compressed.",
        set: |config, value| boolean(value).map(|value| config.audit.log.compress = value),
    },
    Flag {
        name: "audit-log-format",
        value: "json|legacy",
        help: "How audit events are written to the log.",
        set: |config, value| audit_format(value).map(|value| config.audit.log.format = value),
    },
    Flag {
        name: "audit-log-maxage",
        value: "DAYS",
        help: "Rotated audit logs older than this are removed; 0 for never.",
        set: |config, value| {
            let days: u32 = number(value)?;
            config.audit.log.age_max = (days > 0).then(|| Duration::from_secs(u64::from(days) * 24 * 3_600));
            Ok(())
        },
    },
    Flag {
        name: "audit-log-maxbackup",
        value: "NUMBER",
        help: "Rotated audit logs that are kept; 0 for all.",
        set: |config, value| number::<u32>(value).map(|value| config.audit.log.backups_max = value as usize),
    },
    Flag {
        name: "audit-log-maxsize",
        value: "MEGABYTES",
        help: "The audit log is rotated before it is larger; 0 for never.",
        set: |config, value| number::<u32>(value).map(|value| config.audit.log.bytes_max = u64::from(value) << 20),
    },
    Flag {
        name: "audit-log-mode",
        value: "batch|blocking|blocking-strict",
        help: "Whether requests wait until their events are in the log.",
        set: |config, value| audit_mode(value).map(|value| config.audit.log_delivery.mode = value),
    },
    Flag {
        name: "audit-log-path",
        value: "FILE",
        help: "Where audit events are written; `-` is the server's standard output.",
        set: |config, value| {
            config.audit.log.path = value.to_owned();
            Ok(())
        },
    },
    Flag {
        name: "audit-log-truncate-enabled",
        value: "BOOL",
        help: "Whether events that are too large for the log lose their bodies.",
        set: |config, value| boolean(value).map(|value| config.audit.log_delivery.truncate = value),
    },
    Flag {
        name: "audit-log-truncate-max-event-size",
        value: "BYTES",
        help: "What is too large for the log.",
        set: |config, value| positive(value).map(|value| config.audit.log_delivery.truncation.event_bytes_max = value),
    },
    Flag {
        name: "audit-policy-file",
        value: "FILE",
        help: "The `audit.k8s.io/v1` Policy: what of which requests is written.",
        set: |config, value| {
            let policy = audit::policy::Policy::parse(&read(value)?).map_err(|error| anyhow!("{error}"))?;
            config.audit.policy = Some(policy);
            Ok(())
        },
    },
    Flag {
        name: "audit-webhook-batch-buffer-size",
        value: "NUMBER",
        help: "Events that wait for the webhook in batch mode.",
        set: |config, value| positive(value).map(|value| config.audit.webhook_delivery.batching.buffer = value),
    },
    Flag {
        name: "audit-webhook-batch-max-size",
        value: "NUMBER",
        help: "Events that are sent to the webhook together in batch mode.",
        set: |config, value| positive(value).map(|value| config.audit.webhook_delivery.batching.size_max = value),
    },
    Flag {
        name: "audit-webhook-batch-max-wait",
        value: "DURATION",
        help: "How long a batch for the webhook waits for more events.",
        set: |config, value| duration(value).map(|value| config.audit.webhook_delivery.batching.wait_max = value),
    },
    Flag {
        name: "audit-webhook-config-file",
        value: "FILE",
        help: "A kubeconfig that says where audit events are sent.",
        set: |config, value| kubeconfig(value).map(|target| config.audit.webhook = Some(target)),
    },
    Flag {
        name: "audit-webhook-initial-backoff",
        value: "DURATION",
        help: "How long to wait after the first failure of the audit webhook.",
        set: |config, value| duration(value).map(|value| config.audit.webhook_initial_backoff = value),
    },
    Flag {
        name: "audit-webhook-mode",
        value: "batch|blocking|blocking-strict",
        help: "Whether requests wait until the webhook has their events.",
        set: |config, value| audit_mode(value).map(|value| config.audit.webhook_delivery.mode = value),
    },
    Flag {
        name: "audit-webhook-truncate-enabled",
        value: "BOOL",
        help: "Whether events that are too large for the webhook lose their bodies.",
        set: |config, value| boolean(value).map(|value| config.audit.webhook_delivery.truncate = value),
    },
    Flag {
        name: "authentication-config",
        value: "FILE",
        help: "AuthenticationConfiguration: issuers of tokens and who may come without credentials. Read again when it changes.",
        set: |config, value| identity::authentication(config, value),
    },
    Flag {
        name: "authentication-token-webhook-cache-ttl",
        value: "DURATION",
        help: "How long answers of the token webhook are remembered.",
        set: |config, value| {
            identity::webhook(config, |webhook| duration(value).map(|value| webhook.cache_ttl = value))
        },
    },
    Flag {
        name: "authentication-token-webhook-config-file",
        value: "FILE",
        help: "Kubeconfig of a server that knows bearer tokens.",
        set: |config, value| identity::token_webhook(config, value),
    },
    Flag {
        name: "authentication-token-webhook-version",
        value: "VERSION",
        help: "The version of its reviews, v1 or v1beta1; after the flag with its file.",
        set: |config, value| {
            identity::webhook(config, |webhook| {
                webhook.version = value.to_owned();
                Ok(())
            })
        },
    },
    Flag {
        name: "authorization-config",
        value: "FILE",
        help: "AuthorizationConfiguration: the authorizers in order.",
        set: |_, _| Ok(()),
    },
    Flag {
        name: "authorization-mode",
        value: "LIST",
        help: "The authorizers in order: Node, RBAC, Webhook, AlwaysAllow, AlwaysDeny.",
        set: |_, _| Ok(()),
    },
    Flag {
        name: "authorization-policy-file",
        value: "FILE",
        help: "The policies of the mode ABAC, one a line.",
        set: |_, _| Ok(()),
    },
    Flag {
        name: "authorization-webhook-cache-authorized-ttl",
        value: "DURATION",
        help: "How long a yes of the authorization webhook is remembered.",
        set: |_, value| duration(value).map(drop),
    },
    Flag {
        name: "authorization-webhook-cache-unauthorized-ttl",
        value: "DURATION",
        help: "How long its other answers are remembered.",
        set: |_, value| duration(value).map(drop),
    },
    Flag {
        name: "authorization-webhook-config-file",
        value: "FILE",
        help: "Kubeconfig of a server that decides what is allowed.",
        set: |_, _| Ok(()),
    },
    Flag {
        name: "authorization-webhook-version",
        value: "VERSION",
        help: "The version of its reviews, v1 or v1beta1.",
        set: |_, _| Ok(()),
    },
    Flag {
        name: "client-ca-file",
        value: "FILE",
        help: "Authorities of client certificates, besides the cluster's own.",
        set: |config, value| identity::client_ca(config, value),
    },
    Flag {
        name: "disable-admission-plugins",
        value: "NAME,…",
        help: "Admission plugins that do not run.",
        set: |config, value| {
            config.admission.disabled.extend(plugins(value));
            Ok(())
        },
    },
    Flag {
        name: "enable-admission-plugins",
        value: "NAME,…",
        help: "Admission plugins that run besides those that run anyway.",
        set: |config, value| {
            config.admission.enabled.extend(plugins(value));
            Ok(())
        },
    },
    Flag {
        name: "enable-bootstrap-token-auth",
        value: "BOOL",
        help: "Whether bootstrap tokens are taken.",
        set: |config, value| boolean(value).map(|value| config.authn.bootstrap_tokens = value),
    },
    Flag {
        name: "enable-priority-and-fairness",
        value: "BOOL",
        help: "Whether FlowSchemas and PriorityLevelConfigurations decide which requests go first.",
        set: |config, value| boolean(value).map(|value| config.flow_control.enabled = value),
    },
    Flag {
        name: "encryption-provider-config",
        value: "FILE",
        help: "The EncryptionConfiguration: which resources are stored encrypted, and how.",
        set: |_, value| read(value).map(drop),
    },
    Flag {
        name: "encryption-provider-config-automatic-reload",
        value: "BOOL",
        help: "Whether the EncryptionConfiguration is read again when it changes.",
        set: |_, value| boolean(value).map(drop),
    },
    Flag { name: "etcd-cafile", value: "FILE", help: "Whom to trust as etcd.", set: |_, _| Ok(()) },
    Flag { name: "etcd-certfile", value: "FILE", help: "What to show etcd, with etcd-keyfile.", set: |_, _| Ok(()) },
    Flag {
        name: "etcd-compaction-interval",
        value: "DURATION",
        help: "How long old versions can be read, at least; of servers that share an etcd, one compacts.",
        set: |_, value| positive_duration(value).map(drop),
    },
    Flag { name: "etcd-keyfile", value: "FILE", help: "The key of etcd-certfile.", set: |_, _| Ok(()) },
    Flag {
        name: "etcd-prefix",
        value: "PATH",
        help: "What keys in etcd begin with; `/registry` when it is not given.",
        set: |_, _| Ok(()),
    },
    Flag {
        name: "etcd-servers",
        value: "URL,...",
        help: "An etcd cluster instead of the embedded store. Several servers may share it.",
        set: |config, _| {
            config.endpoint_lease.is_shared = true;
            Ok(())
        },
    },
    Flag {
        name: "event-ttl",
        value: "DURATION",
        help: "How long Events are kept.",
        set: |config, value| positive_duration(value).map(|value| config.limits.event_ttl = value),
    },
    Flag {
        name: "goaway-chance",
        value: "0 TO 0.02",
        help: "The chance that a request ends its HTTP/2 connection, so that clients spread.",
        set: |config, value| chance(value).map(|value| config.limits.goaway_chance = value),
    },
    Flag {
        name: "http2-max-streams-per-connection",
        value: "NUMBER",
        help: "Streams at once on one connection of HTTP/2; 0 for the default.",
        set: |config, value| {
            let streams: u32 = number(value)?;
            config.limits.http2_streams_max = if streams == 0 { Limits::default().http2_streams_max } else { streams };
            Ok(())
        },
    },
    Flag {
        name: "max-mutating-requests-inflight",
        value: "NUMBER",
        help: "Writes at once; with max-requests-inflight, the seats that priority levels share.",
        set: |config, value| in_flight(value).map(|value| config.limits.mutating_inflight_max = value),
    },
    Flag {
        name: "max-requests-inflight",
        value: "NUMBER",
        help: "Reads at once; with max-mutating-requests-inflight, the seats that priority levels share.",
        set: |config, value| in_flight(value).map(|value| config.limits.inflight_max = value),
    },
    Flag {
        name: "min-request-timeout",
        value: "SECONDS",
        help: "Watches that say nothing end at random between this and twice this.",
        set: |config, value| {
            number::<u32>(value)
                .map(|value| config.limits.watch_timeout_min = Duration::from_secs(u64::from(value.max(1))))
        },
    },
    Flag {
        name: "oidc-ca-file",
        value: "FILE",
        help: "Whose certificates are believed when asking the issuer.",
        set: |config, value| identity::file(value).map(|text| config.authn.oidc.certificate_authority = text),
    },
    Flag {
        name: "oidc-client-id",
        value: "NAME",
        help: "Who the issuer's tokens must be for.",
        set: |config, value| {
            config.authn.oidc.client_id = value.to_owned();
            Ok(())
        },
    },
    Flag {
        name: "oidc-groups-claim",
        value: "CLAIM",
        help: "The claim with the groups.",
        set: |config, value| {
            config.authn.oidc.groups_claim = value.to_owned();
            Ok(())
        },
    },
    Flag {
        name: "oidc-groups-prefix",
        value: "TEXT",
        help: "What stands before groups.",
        set: |config, value| {
            config.authn.oidc.groups_prefix = value.to_owned();
            Ok(())
        },
    },
    Flag {
        name: "oidc-issuer-url",
        value: "URL",
        help: "An issuer whose tokens are taken.",
        set: |config, value| {
            config.authn.oidc.issuer_url = value.to_owned();
            Ok(())
        },
    },
    Flag {
        name: "oidc-required-claim",
        value: "CLAIM=VALUE",
        help: "A claim that tokens must have; may be repeated.",
        set: |config, value| identity::required_claim(config, value),
    },
    Flag {
        name: "oidc-signing-algs",
        value: "LIST",
        help: "How its tokens may be signed; RS256 when nothing is said.",
        set: |config, value| {
            config.authn.oidc.signing_algs = identity::list(value);
            Ok(())
        },
    },
    Flag {
        name: "oidc-username-claim",
        value: "CLAIM",
        help: "The claim with the user's name; sub when nothing is said.",
        set: |config, value| {
            config.authn.oidc.username_claim = value.to_owned();
            Ok(())
        },
    },
    Flag {
        name: "oidc-username-prefix",
        value: "TEXT",
        help: "What stands before names; - for nothing.",
        set: |config, value| {
            config.authn.oidc.username_prefix = value.to_owned();
            Ok(())
        },
    },
    Flag {
        name: "request-timeout",
        value: "DURATION",
        help: "The longest time for a request that is no watch and no connection.",
        set: |config, value| positive_duration(value).map(|value| config.limits.request_timeout = value),
    },
    Flag {
        name: "requestheader-allowed-names",
        value: "LIST",
        help: "Common names of proxies that are believed, besides the server's own.",
        set: |config, value| {
            identity::proxies(config).allowed_names.extend(identity::list(value));
            Ok(())
        },
    },
    Flag {
        name: "requestheader-client-ca-file",
        value: "FILE",
        help: "Authorities of such proxies, besides the cluster's own.",
        set: |config, value| identity::proxy_ca(config, value),
    },
    Flag {
        name: "requestheader-extra-headers-prefix",
        value: "LIST",
        help: "What headers with extras begin with.",
        set: |config, value| {
            identity::proxies(config).extra_header_prefixes = identity::list(value);
            Ok(())
        },
    },
    Flag {
        name: "requestheader-group-headers",
        value: "LIST",
        help: "Headers with groups.",
        set: |config, value| {
            identity::proxies(config).group_headers = identity::list(value);
            Ok(())
        },
    },
    Flag {
        name: "requestheader-uid-headers",
        value: "LIST",
        help: "Headers with the uid.",
        set: |config, value| {
            identity::proxies(config).uid_headers = identity::list(value);
            Ok(())
        },
    },
    Flag {
        name: "requestheader-username-headers",
        value: "LIST",
        help: "Headers with the user's name.",
        set: |config, value| {
            identity::proxies(config).username_headers = identity::list(value);
            Ok(())
        },
    },
    Flag {
        name: "service-account-extend-token-expiration",
        value: "BOOL",
        help: "Whether tokens of pods live a year, with a warning when they are used after their time.",
        set: |config, value| boolean(value).map(|value| config.authn.exact_token_expiration = !value),
    },
    Flag {
        name: "service-account-issuer",
        value: "URL",
        help: "The issuer of service account tokens; further ones are believed too.",
        set: |config, value| identity::issuer(config, value),
    },
    Flag {
        name: "service-account-jwks-uri",
        value: "URL",
        help: "Where the discovery document says that the keys are.",
        set: |config, value| {
            config.authn.jwks_uri = value.to_owned();
            Ok(())
        },
    },
    Flag {
        name: "service-account-key-file",
        value: "FILE",
        help: "Keys that verify service account tokens, besides the one that signs them; may be repeated.",
        set: |config, value| identity::file(value).map(|text| config.authn.verification_keys.push(text)),
    },
    Flag {
        name: "service-account-max-token-expiration",
        value: "DURATION",
        help: "The longest that a requested token may live.",
        set: |config, value| {
            positive_duration(value).map(|value| config.authn.token_seconds_max = i64::try_from(value.as_secs()).ok())
        },
    },
    Flag {
        name: "service-account-signing-key-file",
        value: "FILE",
        help: "The key that signs service account tokens, PEM: RSA or P-256.",
        set: |config, value| identity::signing_key(config, value),
    },
    Flag {
        name: "service-node-port-range",
        value: "FIRST-LAST",
        help: "The ports of Services of type NodePort.",
        set: |config, value| port_range(value).map(|value| config.node_ports = value),
    },
    Flag {
        name: "shutdown-delay-duration",
        value: "DURATION",
        help: "How long the server goes on while `/readyz` fails before it ends.",
        set: |config, value| duration(value).map(|value| config.shutdown.delay = value),
    },
    Flag {
        name: "shutdown-send-retry-after",
        value: "BOOL",
        help: "Whether requests that come while the server ends are told to try again.",
        set: |config, value| boolean(value).map(|value| config.shutdown.send_retry_after = value),
    },
    Flag {
        name: "strict-transport-security-directives",
        value: "LIST",
        help: "What the header Strict-Transport-Security says, separated by commas; no header without.",
        set: |config, value| hsts(value).map(|value| config.limits.strict_transport_security = value),
    },
    Flag {
        name: "token-auth-file",
        value: "FILE",
        help: "Bearer tokens: lines of token,user,uid,\"group1,group2\".",
        set: |config, value| identity::tokens(config, value),
    },
    Flag {
        name: "tracing-config-file",
        value: "FILE",
        help: "The TracingConfiguration: where traces go and how many requests are traced.",
        set: |config, value| {
            let settings = skiff_api::traces::Settings::parse(&read(value)?).map_err(|error| anyhow!("{error}"))?;
            config.tracing = Some(settings);
            Ok(())
        },
    },
];

/// Flags as they were given, every one of them known.
#[derive(Clone, Debug, Default)]
pub struct ExtraConfig(Vec<(&'static str, String)>);

impl ExtraConfig {
    /// What `up` was given: `None` for nothing, an empty list for a single empty text.
    ///
    /// # Errors
    /// As [`ExtraConfig::parse`].
    pub fn given(texts: &[String]) -> Result<Option<Vec<String>>> {
        match texts {
            [] => Ok(None),
            [only] if only.is_empty() => Ok(Some(Vec::new())),
            texts => Self::parse(texts).map(|_| Some(texts.to_vec())),
        }
    }

    /// Reads `apiserver.FLAG=VALUE` texts.
    ///
    /// # Errors
    /// When a text has another shape or names no known flag.
    pub fn parse(texts: &[String]) -> Result<Self> {
        texts.iter().map(|text| parse_one(text)).collect::<Result<_>>().map(Self)
    }

    /// The last value of a flag, for what is decided before the server is made.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find(|(flag, _)| *flag == name).map(|(_, value)| value.as_str())
    }

    /// Puts every value into the server's configuration.
    ///
    /// # Errors
    /// When a value is no good or its file cannot be read; says which flag.
    pub fn apply(&self, config: &mut Config) -> Result<()> {
        for (name, value) in &self.0 {
            let Some(flag) = FLAGS.iter().find(|flag| flag.name == *name) else { continue };
            (flag.set)(config, value).with_context(|| format!("--extra-config apiserver.{name}={value}"))?;
        }
        Ok(())
    }
}

fn parse_one(text: &str) -> Result<(&'static str, String)> {
    let shape = || anyhow!("--extra-config {text}: write it as apiserver.FLAG=VALUE");
    let (name, value) = text.split_once('=').ok_or_else(shape)?;
    let (component, name) = name.split_once('.').ok_or_else(shape)?;
    if component != "apiserver" {
        bail!("--extra-config {text}: only flags of the component apiserver are taken");
    }
    let name = name.trim_start_matches("--");
    let flag = FLAGS.iter().find(|flag| flag.name == name);
    let Some(flag) = flag else {
        let nearest = FLAGS.iter().min_by_key(|known| distance(known.name, name)).context("there are no flags")?;
        bail!(
            "--extra-config {text}: there is no flag {name}; the nearest is {}={} ({})",
            nearest.name,
            nearest.value,
            nearest.help
        );
    };
    Ok((flag.name, value.to_owned()))
}

/// How many letters have to be put in, taken out or changed to make one of the other.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().take(NAME_LENGTH_MAX).collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, letter) in one.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, known) in other.iter().enumerate() {
            let changed = diagonal + usize::from(letter != *known);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[other.len()]
}

/// No flag is longer; what is beyond is not compared.
const NAME_LENGTH_MAX: usize = 100;

/// The names of plugins, separated by commas.
fn plugins(value: &str) -> impl Iterator<Item = String> {
    value.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned)
}

pub(super) fn boolean(value: &str) -> Result<bool> {
    match value {
        "" | "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        other => bail!("{other:?} is neither true nor false"),
    }
}

fn number<T: std::str::FromStr>(value: &str) -> Result<T>
where
    T::Err: std::error::Error + Send + Sync + 'static,
{
    value.parse().with_context(|| format!("{value:?} is no number in range"))
}

/// Requests at once; 0 is no limit.
fn in_flight(value: &str) -> Result<usize> {
    Ok(number::<u32>(value)? as usize)
}

/// A duration as Go writes it, zero allowed.
fn duration(value: &str) -> Result<Duration> {
    let nanos = skiff_object::time::parse_duration(value)?;
    let nanos = u64::try_from(nanos).map_err(|_| anyhow!("{value} is negative"))?;
    Ok(Duration::from_nanos(nanos))
}

pub(super) fn positive_duration(value: &str) -> Result<Duration> {
    let duration = duration(value)?;
    if duration.is_zero() {
        bail!("must be more than nothing");
    }
    Ok(duration)
}

fn positive(value: &str) -> Result<usize> {
    match number::<u32>(value)? {
        0 => bail!("must be more than nothing"),
        some => Ok(some as usize),
    }
}

fn audit_format(value: &str) -> Result<audit::log::Format> {
    match value {
        "json" => Ok(audit::log::Format::Json),
        "legacy" => Ok(audit::log::Format::Legacy),
        other => bail!("invalid audit log format {other}, allowed formats are \"legacy,json\""),
    }
}

fn audit_mode(value: &str) -> Result<audit::backend::Mode> {
    match value {
        "batch" => Ok(audit::backend::Mode::Batch),
        "blocking" => Ok(audit::backend::Mode::Blocking),
        "blocking-strict" => Ok(audit::backend::Mode::BlockingStrict),
        other => bail!("invalid audit mode {other}, allowed modes are \"batch,blocking,blocking-strict\""),
    }
}

/// The bytes of a file that a flag names.
fn read(path: &str) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("read {path}"))
}

/// The server that a kubeconfig names.
fn kubeconfig(path: &str) -> Result<skiff_api::outbound::Target> {
    let folder = std::path::Path::new(path).parent().unwrap_or(std::path::Path::new("."));
    skiff_api::kubeconfig::target(&read(path)?, folder).map_err(|error| anyhow!("{path}: {error}"))
}

fn chance(value: &str) -> Result<f64> {
    let chance: f64 = number(value)?;
    if !(0.0..=0.02).contains(&chance) {
        bail!("--goaway-chance can not be less than 0 or greater than 0.02");
    }
    Ok(chance)
}

/// Directives as the header has them.
fn hsts(value: &str) -> Result<String> {
    let directives: Vec<&str> = value.split(',').map(str::trim).filter(|directive| !directive.is_empty()).collect();
    for directive in &directives {
        let is_age = directive.strip_prefix("max-age=").is_some_and(|age| age.parse::<u64>().is_ok());
        if !is_age && !matches!(*directive, "includeSubDomains" | "preload") {
            bail!("{directive}: only max-age=SECONDS, includeSubDomains and preload are directives");
        }
    }
    Ok(directives.join("; "))
}

fn port_range(value: &str) -> Result<(u16, u16)> {
    let (first, last) = value.split_once('-').context("write it as FIRST-LAST")?;
    let (first, last) = (number(first)?, number(last)?);
    if first == 0 || first > last {
        bail!("{value} holds no port");
    }
    Ok((first, last))
}

#[cfg(test)]
mod tests {
    use expect_test::{expect, expect_file};
    use skiff_base::{Clock, Random, Shutdown, Tasks};
    use skiff_store::memory::MemoryStore;

    use super::*;

    fn config() -> Config {
        let clock = Clock::system();
        Config::new(
            "test",
            std::sync::Arc::new(MemoryStore::new(clock.clone())),
            clock,
            Random::seeded(1),
            Tasks::new("test", Shutdown::new()),
            Vec::new(),
        )
    }

    fn outcome(texts: &[&str]) -> Result<Config> {
        let texts: Vec<String> = texts.iter().map(ToString::to_string).collect();
        let mut config = config();
        ExtraConfig::parse(&texts)?.apply(&mut config)?;
        Ok(config)
    }

    #[test]
    fn values_reach_the_configuration() {
        let config = outcome(&[
            "apiserver.event-ttl=2h",
            "apiserver.request-timeout=1m30s",
            "apiserver.anonymous-auth=true",
            "apiserver.anonymous-auth=false",
            "apiserver.service-node-port-range=30000-30010",
        ])
        .unwrap();
        assert_eq!(config.limits.event_ttl, Duration::from_secs(7_200));
        assert_eq!(config.limits.request_timeout, Duration::from_secs(90));
        assert!(!config.anonymous);
        assert_eq!(config.node_ports, (30_000, 30_010));
    }

    #[test]
    fn what_is_wrong_is_said_in_one_line() {
        let mut lines = String::new();
        for text in [
            "event-ttl=1h",
            "apiserver.event-ttl",
            "kubelet.max-pods=3",
            "apiserver.event-tll=1h",
            "apiserver.event-ttl=0s",
            "apiserver.event-ttl=5",
            "apiserver.anonymous-auth=maybe",
            "apiserver.service-node-port-range=5-4",
            "apiserver.min-request-timeout=-1",
        ] {
            let error = outcome(&[text]).err().map(|error| format!("{error:#}"));
            lines.push_str(&error.unwrap_or_else(|| format!("{text}: accepted")));
            lines.push('\n');
        }
        expect![[r#"
            --extra-config event-ttl=1h: write it as apiserver.FLAG=VALUE
            --extra-config apiserver.event-ttl: write it as apiserver.FLAG=VALUE
            --extra-config kubelet.max-pods=3: only flags of the component apiserver are taken
            --extra-config apiserver.event-tll=1h: there is no flag event-tll; the nearest is event-ttl=DURATION (How long Events are kept.)
            --extra-config apiserver.event-ttl=0s: must be more than nothing
            --extra-config apiserver.event-ttl=5: time: missing unit in duration "5"
            --extra-config apiserver.anonymous-auth=maybe: "maybe" is neither true nor false
            --extra-config apiserver.service-node-port-range=5-4: 5-4 holds no port
            --extra-config apiserver.min-request-timeout=-1: "-1" is no number in range: invalid digit found in string
        "#]].assert_eq(&lines);
    }

    #[test]
    fn the_table_is_sorted_and_the_page_of_flags_is_made_from_it() {
        assert!(FLAGS.is_sorted_by_key(|flag| flag.name));
        let mut page = String::from(
            "# Flags of the API server\n\n\
             `skiff up --extra-config apiserver.FLAG=VALUE` takes these flags of kube-apiserver, under its names and\n\
             with its values. The option may be repeated; flags given to an `up` replace those of the one before.\n\
             A test of `crates/skiff/src/server/extra_config.rs` writes this page: `UPDATE_EXPECT=1 cargo test -p skiff\n\
             flags`.\n\n| flag | value | what it does |\n| --- | --- | --- |\n",
        );
        for flag in FLAGS {
            page.push_str(&format!("| `{}` | {} | {} |\n", flag.name, flag.value, flag.help));
        }
        expect_file!["../../../../docs/flags.md"].assert_eq(&page);
    }
}
