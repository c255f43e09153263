//! From what an issuer claims to a user.

use serde_json::Value;

use super::config::{ClaimRule, Issuer, Mapping};
use super::refuse;
use crate::authn::UserInfo;
use crate::authn::chain::Refusal;

/// The user that claims stand for, when every rule of the issuer holds.
pub(super) fn user(issuer: &Issuer, claims: &Value) -> Result<UserInfo, Refusal> {
    let mut user = UserInfo { name: username(issuer, claims)?, ..UserInfo::default() };
    user.groups = groups(issuer, claims)?;
    user.uid = match &issuer.uid {
        None => String::new(),
        Some(Mapping::Claim { claim, .. }) => {
            text(claims, claim).or_else(|why| refuse(format!("parse uid claim {claim:?}: {why}")))?
        }
        Some(Mapping::Expression(expression)) => match expression.on_claims(claims) {
            Ok(Value::String(uid)) => uid,
            Ok(_) => return refuse("error evaluating uid claim expression: uid claim expression must return a string"),
            Err(why) => return refuse(format!("error evaluating uid claim expression: {why}")),
        },
    };
    if let Some(id) = claims.get("jti").and_then(Value::as_str) {
        user.extra.insert("authentication.kubernetes.io/credential-id".into(), vec![format!("JTI={id}")]);
    }
    for (key, expression) in &issuer.extra {
        let values = expression.on_claims(claims).and_then(|value| words(&value));
        let values = values.or_else(|why| {
            refuse(format!("error evaluating extra claim expression: {}: {why}", expression.source()))
        })?;
        if !values.is_empty() {
            user.extra.insert(key.clone(), values);
        }
    }
    issuer.claim_rules.iter().try_for_each(|rule| check_claim(rule, claims))?;
    check_user(issuer, &user)?;
    Ok(user)
}

fn username(issuer: &Issuer, claims: &Value) -> Result<String, Refusal> {
    let (claim, prefix) = match &issuer.username {
        Mapping::Claim { claim, prefix } => (claim, prefix),
        Mapping::Expression(expression) => {
            return match expression.on_claims(claims) {
                Ok(Value::String(name)) if name.is_empty() => {
                    refuse("empty username via CEL expression is not allowed")
                }
                Ok(Value::String(name)) => Ok(name),
                Ok(_) => {
                    refuse("error evaluating username claim expression: username claim expression must return a string")
                }
                Err(why) => refuse(format!("error evaluating username claim expression: {why}")),
            };
        }
    };
    let name = text(claims, claim).or_else(|why| refuse(format!("parse username claims {claim:?}: {why}")))?;
    if claim == "email" {
        match claims.get("email_verified") {
            None | Some(Value::Bool(true)) => {}
            Some(Value::Bool(false)) => return refuse("email not verified"),
            Some(_) => return refuse("parse 'email_verified' claim: not a boolean"),
        }
    }
    Ok(format!("{prefix}{name}"))
}

fn groups(issuer: &Issuer, claims: &Value) -> Result<Vec<String>, Refusal> {
    match &issuer.groups {
        None => Ok(Vec::new()),
        Some(Mapping::Claim { claim, prefix }) => match claims.get(claim) {
            None => Ok(Vec::new()),
            Some(value) => match strings(value) {
                Some(groups) => Ok(groups.into_iter().map(|group| format!("{prefix}{group}")).collect()),
                None => refuse(format!("parse groups claim {claim:?}: neither a string nor a list of strings")),
            },
        },
        Some(Mapping::Expression(expression)) => expression
            .on_claims(claims)
            .and_then(|value| words(&value))
            .or_else(|why| refuse(format!("error evaluating group claim expression: {why}"))),
    }
}

fn check_claim(rule: &ClaimRule, claims: &Value) -> Result<(), Refusal> {
    match rule {
        ClaimRule::Required { claim, value } => {
            if claims.get(claim).is_none() {
                return refuse(format!("required claim {claim} not present in ID token"));
            }
            let got = text(claims, claim).or_else(|why| refuse(format!("parse claim {claim}: {why}")))?;
            if got != *value {
                return refuse(format!("required claim {claim} value does not match. Got = {got}, want = {value}"));
            }
            Ok(())
        }
        ClaimRule::Expression { expression, message } => {
            holds(expression.on_claims(claims), expression.source(), message)
                .or_else(|why| refuse(format!("error evaluating claim validation expression: {why}")))
        }
    }
}

fn check_user(issuer: &Issuer, user: &UserInfo) -> Result<(), Refusal> {
    if issuer.user_rules.is_empty() {
        return Ok(());
    }
    let value = serde_json::json!({
        "username": user.name, "uid": user.uid, "groups": user.groups, "extra": user.extra,
    });
    for (expression, message) in &issuer.user_rules {
        holds(expression.on_user(&value), expression.source(), message)
            .or_else(|why| refuse(format!("error evaluating user info validation rule: {why}")))?;
    }
    Ok(())
}

fn holds(outcome: Result<Value, String>, source: &str, message: &str) -> Result<(), String> {
    match outcome? {
        Value::Bool(true) => Ok(()),
        Value::Bool(false) => Err(format!("validation expression '{source}' failed: {message}")),
        _ => Err("validation expression must return a boolean".into()),
    }
}

fn text(claims: &Value, claim: &str) -> Result<String, String> {
    match claims.get(claim) {
        None => Err("claim not present".into()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(_) => Err("json: cannot unmarshal into Go value of type string".into()),
    }
}

/// A string or a list of strings.
pub(super) fn strings(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::String(one) => Some(vec![one.clone()]),
        Value::Array(many) => many.iter().map(|one| one.as_str().map(str::to_owned)).collect(),
        _ => None,
    }
}

/// What an expression gives for groups or extras: empty texts count for nothing.
fn words(value: &Value) -> Result<Vec<String>, String> {
    if value.is_null() {
        return Ok(Vec::new());
    }
    let words = strings(value).ok_or("expression must return a string or a list of strings")?;
    Ok(words.into_iter().filter(|word| !word.is_empty()).collect())
}

/// As Go's `%q` writes a list of strings.
pub(super) fn go_list(list: &[String]) -> String {
    let quoted: Vec<String> = list.iter().map(|one| format!("{one:?}")).collect();
    format!("[{}]", quoted.join(" "))
}
