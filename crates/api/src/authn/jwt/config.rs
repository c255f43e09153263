//! `AuthenticationConfiguration` of `apiserver.config.k8s.io/v1`: which issuers are believed, what
//! their claims mean, and who may come without credentials.
//!
//! Everything wrong with a configuration is said at once, in upstream's words.

use std::collections::HashSet;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use skiff_object::errors::{FieldError, message};
use skiff_object::{Tree, yaml};

use super::expression::{Expression, Over};
use crate::authn::anonymous::Anonymous;
use crate::authn::impersonation::domain_prefixed_path;
use crate::authn::jws::Algorithm;

/// See the [module](self).
#[derive(Debug, Default)]
pub struct Configuration {
    /// The issuers, in order.
    pub issuers: Vec<Issuer>,
    /// Who may come without credentials, when it is said.
    pub anonymous: Option<Anonymous>,
}

/// One issuer and what its claims mean.
#[derive(Debug)]
pub struct Issuer {
    /// Its name, a URL.
    pub url: String,
    /// Where its discovery document is, when that is not below the URL.
    pub discovery_url: String,
    /// Who its tokens must be for: any of these.
    pub audiences: Vec<String>,
    /// Whose certificates are believed when asking it, PEM; empty for those the machine trusts.
    pub certificate_authority: String,
    /// How its tokens may be signed.
    pub algorithms: Vec<Algorithm>,
    /// The user's name.
    pub username: Mapping,
    /// The groups.
    pub groups: Option<Mapping>,
    /// The uid.
    pub uid: Option<Mapping>,
    /// Extras by key.
    pub extra: Vec<(String, Expression)>,
    /// What claims must hold.
    pub claim_rules: Vec<ClaimRule>,
    /// What must hold of the user, with the message for when it does not.
    pub user_rules: Vec<(Expression, String)>,
}

/// Where a part of the user comes from.
#[derive(Debug)]
pub enum Mapping {
    /// A claim, with a text before it.
    Claim {
        /// The claim.
        claim: String,
        /// The text.
        prefix: String,
    },
    /// An expression over all claims.
    Expression(Expression),
}

/// What claims must hold.
#[derive(Debug)]
pub enum ClaimRule {
    /// A claim with this value.
    Required {
        /// The claim.
        claim: String,
        /// Its value.
        value: String,
    },
    /// An expression that is true.
    Expression {
        /// The expression.
        expression: Expression,
        /// What to say when it is not.
        message: String,
    },
}

/// Why a configuration is not taken.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigurationError(pub String);

impl Issuer {
    /// Whether a token's `iss` means this issuer.
    pub fn is_named(&self, issuer: &str) -> bool {
        // Google once issued without the scheme, and upstream still takes it.
        let issuer = if issuer == "accounts.google.com" { "https://accounts.google.com" } else { issuer };
        self.url == issuer
    }
}

const GROUP: &str = "apiserver.config.k8s.io";
const KIND: &str = "AuthenticationConfiguration";
/// Upstream's bound.
const ISSUERS_MAX: usize = 64;

impl Configuration {
    /// Reads a configuration file. `own` are the issuers of this server, which nobody else may be.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn read(text: &str, own: &[String]) -> Result<Self, ConfigurationError> {
        let tree = yaml::decode_untyped(text.as_bytes()).map_err(|error| ConfigurationError(error.to_string()))?;
        let api_version = tree.str_at(&["apiVersion"]);
        let version = api_version.strip_prefix(GROUP).and_then(|rest| rest.strip_prefix('/'));
        if tree.str_at(&["kind"]) != KIND || !matches!(version, Some("v1" | "v1beta1" | "v1alpha1")) {
            return Err(ConfigurationError(format!(
                "no kind {:?} is registered for version {api_version:?}",
                tree.str_at(&["kind"])
            )));
        }
        let mut reader = Reader { errors: Vec::new(), unknown: Vec::new(), own };
        let configuration = reader.configuration(&tree);
        if !reader.unknown.is_empty() {
            return Err(ConfigurationError(format!("strict decoding error: {}", reader.unknown.join(", "))));
        }
        if reader.errors.is_empty() { Ok(configuration) } else { Err(ConfigurationError(message(&reader.errors))) }
    }
}

struct Reader<'a> {
    errors: Vec<FieldError>,
    unknown: Vec<String>,
    own: &'a [String],
}

impl Reader<'_> {
    fn known(&mut self, tree: &Tree, path: &str, fields: &[&str]) {
        for key in tree.as_map().into_iter().flat_map(skiff_object::Map::keys) {
            if !fields.contains(&key.as_str()) {
                let dot = if path.is_empty() { "" } else { "." };
                self.unknown.push(format!("unknown field \"{path}{dot}{}\"", key.as_str()));
            }
        }
    }

    fn configuration(&mut self, tree: &Tree) -> Configuration {
        self.known(tree, "", &["apiVersion", "kind", "jwt", "anonymous"]);
        let list = tree.list_at(&["jwt"]);
        if list.len() > ISSUERS_MAX {
            self.errors.push(FieldError::too_many("jwt", list.len(), ISSUERS_MAX));
            return Configuration::default();
        }
        let mut issuers: Vec<Issuer> = Vec::new();
        for (at, one) in list.iter().enumerate() {
            let path = format!("jwt[{at}]");
            let issuer = self.issuer(one, &path);
            if issuers.iter().any(|other| other.url == issuer.url) {
                self.errors.push(FieldError::duplicate(format!("{path}.issuer.url"), issuer.url.as_str()));
            }
            let discovery = issuer.discovery_url.as_str();
            if !discovery.is_empty() && issuers.iter().any(|other| other.discovery_url == discovery) {
                self.errors.push(FieldError::duplicate(format!("{path}.issuer.discoveryURL"), discovery));
            }
            issuers.push(issuer);
        }
        Configuration { issuers, anonymous: self.anonymous(tree) }
    }

    fn anonymous(&mut self, tree: &Tree) -> Option<Anonymous> {
        let anonymous = tree.get("anonymous").filter(|anonymous| !anonymous.is_null())?;
        self.known(anonymous, "anonymous", &["enabled", "conditions"]);
        let conditions = anonymous.list_at(&["conditions"]);
        for (at, condition) in conditions.iter().enumerate() {
            self.known(condition, &format!("anonymous.conditions[{at}]"), &["path"]);
        }
        let enabled = anonymous.bool_at(&["enabled"]).unwrap_or(false);
        if !enabled && !conditions.is_empty() {
            let why = "enabled should be set to true when conditions are defined";
            let value = Tree::List(conditions.to_vec());
            self.errors.push(FieldError::invalid("anonymous.conditions", &value, why));
        }
        Some(match (enabled, conditions) {
            (false, _) => Anonymous::Never,
            (true, []) => Anonymous::Always,
            (true, paths) => Anonymous::Paths(paths.iter().map(|one| one.str_at(&["path"]).to_owned()).collect()),
        })
    }

    fn issuer(&mut self, tree: &Tree, path: &str) -> Issuer {
        let fields = ["issuer", "claimValidationRules", "claimMappings", "userValidationRules"];
        self.known(tree, path, &fields);
        let text = |field: &str| tree.str_at(&["issuer", field]).to_owned();
        let at = format!("{path}.issuer");
        if let Some(issuer) = tree.get("issuer") {
            let fields = ["url", "discoveryURL", "certificateAuthority", "audiences", "audienceMatchPolicy"];
            self.known(issuer, &at, &fields);
        }
        let audiences: Vec<String> = tree
            .list_at(&["issuer", "audiences"])
            .iter()
            .map(|one| one.as_str().unwrap_or_default().to_owned())
            .collect();
        let (url, discovery_url) = (text("url"), text("discoveryURL"));
        self.urls(&url, &discovery_url, &at);
        self.audiences(&audiences, &text("audienceMatchPolicy"), &at);
        let certificate_authority = text("certificateAuthority");
        if !certificate_authority.is_empty() {
            let certificates = CertificateDer::pem_slice_iter(certificate_authority.as_bytes());
            if !matches!(certificates.collect::<Result<Vec<_>, _>>(), Ok(found) if !found.is_empty()) {
                let why = "data does not contain any valid RSA or ECDSA certificates";
                self.errors.push(FieldError::invalid(format!("{at}.certificateAuthority"), "<omitted>", why));
            }
        }
        let claim_rules = self.claim_rules(tree, &format!("{path}.claimValidationRules"));
        let at = format!("{path}.claimMappings");
        if let Some(mappings) = tree.get("claimMappings") {
            self.known(mappings, &at, &["username", "groups", "uid", "extra"]);
        }
        let mapping = |field: &str| tree.at(&["claimMappings", field]).filter(|tree| !tree.is_null());
        let username = self.mapping(mapping("username"), &format!("{at}.username"), true, true);
        let groups = self.mapping(mapping("groups"), &format!("{at}.groups"), false, true);
        let uid = self.mapping(mapping("uid"), &format!("{at}.uid"), false, false);
        let issuer = Issuer {
            url,
            discovery_url,
            audiences,
            certificate_authority,
            algorithms: Algorithm::ALL.to_vec(),
            username: username.unwrap_or(Mapping::Claim { claim: String::new(), prefix: String::new() }),
            groups,
            uid,
            extra: self.extra(tree, &format!("{at}.extra")),
            claim_rules,
            user_rules: self.user_rules(tree, &format!("{path}.userValidationRules")),
        };
        self.emails(&issuer, &at);
        issuer
    }

    fn urls(&mut self, url: &str, discovery: &str, at: &str) {
        let field = format!("{at}.url");
        if url.is_empty() {
            self.errors.push(FieldError::required(&field, ""));
        } else {
            if self.own.iter().any(|own| own == url) {
                let own = self.own.join(" ");
                let why = format!("URL must not overlap with disallowed issuers: [{own}]");
                self.errors.push(FieldError::invalid(&field, url, why));
            }
            self.url(url, &field);
        }
        if discovery.is_empty() {
            return;
        }
        let field = format!("{at}.discoveryURL");
        if !url.is_empty() && url.trim_end_matches('/') == discovery.trim_end_matches('/') {
            self.errors.push(FieldError::invalid(&field, discovery, "discoveryURL must be different from URL"));
        }
        self.url(discovery, &field);
    }

    fn url(&mut self, url: &str, field: &str) {
        let mut invalid = |why: &str| self.errors.push(FieldError::invalid(field, url, why));
        let (rest, has_fragment) = url.split_once('#').map_or((url, false), |(rest, after)| (rest, !after.is_empty()));
        let (rest, has_query) = rest.split_once('?').map_or((rest, false), |(rest, after)| (rest, !after.is_empty()));
        let (scheme, rest) = rest.split_once("://").unwrap_or(("", rest));
        if scheme != "https" {
            invalid("URL scheme must be https");
        }
        if rest.split('/').next().is_some_and(|authority| authority.contains('@')) {
            invalid("URL must not contain a username or password");
        }
        if has_query {
            invalid("URL must not contain a query");
        }
        if has_fragment {
            invalid("URL must not contain a fragment");
        }
    }

    fn audiences(&mut self, audiences: &[String], policy: &str, at: &str) {
        let field = format!("{at}.audiences");
        if audiences.is_empty() {
            self.errors.push(FieldError::required(&field, format!("at least one {field} is required")));
            return;
        }
        let mut seen = HashSet::new();
        for (index, audience) in audiences.iter().enumerate() {
            let field = format!("{field}[{index}]");
            if audience.is_empty() {
                self.errors.push(FieldError::required(&field, ""));
            }
            if !seen.insert(audience) {
                self.errors.push(FieldError::duplicate(&field, audience.as_str()));
            }
        }
        let why = match (audiences.len(), policy) {
            (_, "MatchAny") | (1, "") => return,
            (1, _) => "audienceMatchPolicy must be empty or MatchAny for single audience",
            _ => "audienceMatchPolicy must be MatchAny for multiple audiences",
        };
        self.errors.push(FieldError::invalid(format!("{at}.audienceMatchPolicy"), policy, why));
    }

    fn expression(&mut self, source: &str, over: Over, field: String) -> Option<Expression> {
        match Expression::compile(source, over) {
            Ok(expression) => Some(expression),
            Err(why) => {
                self.errors.push(FieldError::invalid(field, source, format!("compilation failed: {why}")));
                None
            }
        }
    }

    fn mapping(&mut self, tree: Option<&Tree>, path: &str, is_required: bool, has_prefix: bool) -> Option<Mapping> {
        let empty = Tree::map();
        let tree = tree.unwrap_or(&empty);
        let fields: &[&str] = if has_prefix { &["claim", "prefix", "expression"] } else { &["claim", "expression"] };
        self.known(tree, path, fields);
        let prefix = tree.get("prefix").and_then(Tree::as_str);
        match (tree.str_at(&["claim"]), tree.str_at(&["expression"])) {
            ("", "") => {
                if is_required {
                    self.errors.push(FieldError::required(path, "claim or expression is required"));
                }
                None
            }
            ("", source) => {
                if let Some(prefix) = prefix {
                    let why = "may not be specified when expression is set";
                    self.errors.push(FieldError::invalid(format!("{path}.prefix"), prefix, why));
                }
                self.expression(source, Over::Claims, format!("{path}.expression")).map(Mapping::Expression)
            }
            (claim, "") => {
                if prefix.is_none() && has_prefix {
                    let why =
                        "prefix is required when claim is set. It can be set to an empty string to disable prefixing";
                    self.errors.push(FieldError::required(format!("{path}.prefix"), why));
                }
                Some(Mapping::Claim { claim: claim.to_owned(), prefix: prefix.unwrap_or_default().to_owned() })
            }
            _ => {
                self.errors.push(FieldError::invalid(path, "", "claim and expression can't both be set"));
                None
            }
        }
    }

    fn extra(&mut self, tree: &Tree, path: &str) -> Vec<(String, Expression)> {
        let mut extra: Vec<(String, Expression)> = Vec::new();
        for (at, one) in tree.list_at(&["claimMappings", "extra"]).iter().enumerate() {
            let path = format!("{path}[{at}]");
            self.known(one, &path, &["key", "valueExpression"]);
            let (key, source) = (one.str_at(&["key"]), one.str_at(&["valueExpression"]));
            let field = format!("{path}.key");
            if key.is_empty() {
                self.errors.push(FieldError::required(&field, ""));
            } else if let Some(why) = domain_prefixed_path(key) {
                self.errors.push(FieldError::invalid(&field, key, why));
            }
            if key.chars().any(char::is_uppercase) {
                self.errors.push(FieldError::invalid(&field, key, "must be lowercase"));
            }
            let domain = key.split('/').next().filter(|_| key.contains('/')).unwrap_or("");
            let reserved = |name: &str| domain == name || domain.ends_with(&format!(".{name}"));
            if reserved("kubernetes.io") || reserved("k8s.io") {
                let why = "k8s.io, kubernetes.io and their subdomains are reserved for Kubernetes use";
                self.errors.push(FieldError::invalid(&field, key, why));
            }
            if extra.iter().any(|(other, _)| other == key) {
                self.errors.push(FieldError::duplicate(&field, key));
            } else if source.is_empty() {
                self.errors.push(FieldError::required(format!("{path}.valueExpression"), ""));
            } else if let Some(expression) = self.expression(source, Over::Claims, format!("{path}.valueExpression")) {
                extra.push((key.to_owned(), expression));
            }
        }
        extra
    }

    fn claim_rules(&mut self, tree: &Tree, path: &str) -> Vec<ClaimRule> {
        let mut rules = Vec::new();
        let (mut claims, mut sources) = (HashSet::new(), HashSet::new());
        for (at, one) in tree.list_at(&["claimValidationRules"]).iter().enumerate() {
            let path = format!("{path}[{at}]");
            self.known(one, &path, &["claim", "requiredValue", "expression", "message"]);
            let text = |field: &str| one.str_at(&[field]);
            let only = |wrong: &str, field: &str, other: &str| {
                let why = format!("may not be specified when {other} is set");
                (!wrong.is_empty()).then(|| FieldError::invalid(format!("{path}.{field}"), wrong, why))
            };
            match (text("claim"), text("expression")) {
                ("", "") => self.errors.push(FieldError::required(&path, "claim or expression is required")),
                (claim, "") => {
                    self.errors.extend(only(text("message"), "message", "claim"));
                    if !claims.insert(claim.to_owned()) {
                        self.errors.push(FieldError::duplicate(format!("{path}.claim"), claim));
                    }
                    rules.push(ClaimRule::Required { claim: claim.into(), value: text("requiredValue").into() });
                }
                ("", source) => {
                    self.errors.extend(only(text("requiredValue"), "requiredValue", "expression"));
                    if !sources.insert(source.to_owned()) {
                        self.errors.push(FieldError::duplicate(format!("{path}.expression"), source));
                        continue;
                    }
                    let expression = self.expression(source, Over::Claims, format!("{path}.expression"));
                    let message = text("message").to_owned();
                    rules.extend(expression.map(|expression| ClaimRule::Expression { expression, message }));
                }
                (claim, _) => {
                    let why = "claim and expression can't both be set";
                    self.errors.push(FieldError::invalid(&path, claim, why));
                }
            }
        }
        rules
    }

    fn user_rules(&mut self, tree: &Tree, path: &str) -> Vec<(Expression, String)> {
        let mut rules: Vec<(Expression, String)> = Vec::new();
        for (at, one) in tree.list_at(&["userValidationRules"]).iter().enumerate() {
            self.known(one, &format!("{path}[{at}]"), &["expression", "message"]);
            let field = format!("{path}[{at}].expression");
            match one.str_at(&["expression"]) {
                "" => self.errors.push(FieldError::required(field, "")),
                source if rules.iter().any(|(other, _)| other.source() == source) => {
                    self.errors.push(FieldError::duplicate(field, source));
                }
                source => {
                    let message = one.str_at(&["message"]).to_owned();
                    rules.extend(self.expression(source, Over::User, field).map(|expression| (expression, message)));
                }
            }
        }
        rules
    }

    /// Whoever names users by their email must look at whether it was verified.
    fn emails(&mut self, issuer: &Issuer, at: &str) {
        let Mapping::Expression(username) = &issuer.username else { return };
        let rules = issuer.claim_rules.iter().filter_map(|rule| match rule {
            ClaimRule::Expression { expression, .. } => Some(expression),
            ClaimRule::Required { .. } => None,
        });
        let mut all = std::iter::once(username).chain(issuer.extra.iter().map(|(_, one)| one)).chain(rules);
        if username.mentions("email") && !all.any(|one| one.mentions("email_verified")) {
            let why = "claims.email_verified must be used in claimMappings.username.expression or \
                       claimMappings.extra[*].valueExpression or claimValidationRules[*].expression when claims.email \
                       is used in claimMappings.username.expression";
            self.errors.push(FieldError::invalid(format!("{at}.username.expression"), username.source(), why));
        }
    }
}

/// What the `--oidc-*` flags say.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// `--oidc-issuer-url`
    pub issuer_url: String,
    /// `--oidc-client-id`
    pub client_id: String,
    /// The text of `--oidc-ca-file`.
    pub certificate_authority: String,
    /// `--oidc-username-claim`; empty for `sub`.
    pub username_claim: String,
    /// `--oidc-username-prefix`; `-` for none.
    pub username_prefix: String,
    /// `--oidc-groups-claim`
    pub groups_claim: String,
    /// `--oidc-groups-prefix`
    pub groups_prefix: String,
    /// `--oidc-required-claim`, each `claim=value`.
    pub required_claims: Vec<(String, String)>,
    /// `--oidc-signing-algs`; empty for `RS256`.
    pub signing_algs: Vec<String>,
}

impl Flags {
    /// The issuer that the flags mean; `None` when they mean none.
    ///
    /// # Errors
    /// When issuer and client are not both given, or a signing algorithm is unknown.
    pub fn issuer(&self) -> Result<Option<Issuer>, ConfigurationError> {
        match (self.issuer_url.is_empty(), self.client_id.is_empty()) {
            (true, true) => return Ok(None),
            (false, false) => {}
            _ => {
                let why = "oidc-issuer-url and oidc-client-id must be specified together when any oidc-* flags are set";
                return Err(ConfigurationError(why.into()));
            }
        }
        let names = if self.signing_algs.is_empty() { vec!["RS256".to_owned()] } else { self.signing_algs.clone() };
        let algorithms: Vec<Algorithm> = names
            .iter()
            .map(|name| {
                let unsupported = || ConfigurationError(format!("oidc: unsupported signing alg: {name:?}"));
                Algorithm::named(name).ok_or_else(unsupported)
            })
            .collect::<Result<_, _>>()?;
        let claim = if self.username_claim.is_empty() { "sub".to_owned() } else { self.username_claim.clone() };
        let prefix = match self.username_prefix.as_str() {
            // Names of different issuers must not meet, but emails are unique by themselves.
            "" if claim != "email" => format!("{}#", self.issuer_url),
            "-" => String::new(),
            given => given.to_owned(),
        };
        let groups = (!self.groups_claim.is_empty())
            .then(|| Mapping::Claim { claim: self.groups_claim.clone(), prefix: self.groups_prefix.clone() });
        let rules = self.required_claims.iter();
        let rules = rules.map(|(claim, value)| ClaimRule::Required { claim: claim.clone(), value: value.clone() });
        Ok(Some(Issuer {
            url: self.issuer_url.clone(),
            discovery_url: String::new(),
            audiences: vec![self.client_id.clone()],
            certificate_authority: self.certificate_authority.clone(),
            algorithms,
            username: Mapping::Claim { claim, prefix },
            groups,
            uid: None,
            extra: Vec::new(),
            claim_rules: rules.collect(),
            user_rules: Vec::new(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    #[track_caller]
    fn check(jwt: &str, expected: Expect) {
        let text = format!("apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\n{jwt}");
        let outcome = Configuration::read(&text, &["https://own".to_owned()]);
        expected.assert_eq(&outcome.map_or_else(|error| error.to_string(), |_| "ok".into()));
    }

    #[test]
    fn what_is_wrong_is_said_in_upstreams_words() {
        check(
            "jwt:\n- issuer: {url: 'https://a', audiences: [x]}\n  claimMappings: {username: {claim: sub, prefix: ''}}",
            expect!["ok"],
        );
        check("anonymous: {enabled: true, conditions: [{path: /livez}]}", expect!["ok"]);
        check("jwt: []\nfoo: 1", expect![[r#"strict decoding error: unknown field "foo""#]]);
        check(
            "jwt:\n- issuer: {url: 'http://u:p@a?x=1#f', audiences: [x, x]}\n  claimMappings: {username: {claim: sub}}",
            expect![[
                r#"[jwt[0].issuer.url: Invalid value: "http://u:p@a?x=1#f": URL scheme must be https, jwt[0].issuer.url: Invalid value: "http://u:p@a?x=1#f": URL must not contain a username or password, jwt[0].issuer.url: Invalid value: "http://u:p@a?x=1#f": URL must not contain a query, jwt[0].issuer.url: Invalid value: "http://u:p@a?x=1#f": URL must not contain a fragment, jwt[0].issuer.audiences[1]: Duplicate value: "x", jwt[0].issuer.audienceMatchPolicy: Invalid value: "": audienceMatchPolicy must be MatchAny for multiple audiences, jwt[0].claimMappings.username.prefix: Required value: prefix is required when claim is set. It can be set to an empty string to disable prefixing]"#
            ]],
        );
        check(
            "jwt:\n- issuer: {url: 'https://own'}\n  claimValidationRules: [{claim: a, expression: b}, {}]",
            expect![[
                r#"[jwt[0].issuer.url: Invalid value: "https://own": URL must not overlap with disallowed issuers: [https://own], jwt[0].issuer.audiences: Required value: at least one jwt[0].issuer.audiences is required, jwt[0].claimValidationRules[0]: Invalid value: "a": claim and expression can't both be set, jwt[0].claimValidationRules[1]: Required value: claim or expression is required, jwt[0].claimMappings.username: Required value: claim or expression is required]"#
            ]],
        );
        let other = Configuration::read("apiVersion: v1\nkind: Pod", &[]).unwrap_err().to_string();
        assert_eq!(other, "no kind \"Pod\" is registered for version \"v1\"");
    }
}
