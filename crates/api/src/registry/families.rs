//! The IP families of a Service: filled in, and checked against what the cluster has. This one has
//! a single family; what asks for two is refused in upstream's words.

use skiff_object::Tree;

use super::services::is_headless;
use crate::errors::{ApiError, ApiResult, Cause};
use crate::meta;
use crate::write::Writer;

const SINGLE: &str = "SingleStack";
const REQUIRE: &str = "RequireDualStack";

/// Sets `clusterIP`, `ipFamilyPolicy` and `ipFamilies` where the client says nothing.
///
/// # Errors
/// 422 with everything that cannot be on this cluster.
pub(super) fn fill(writer: &Writer<'_>, service: &mut Tree, old: Option<&Tree>) -> ApiResult<()> {
    let family = if writer.server.config.service_cidr.0.is_ipv4() { "IPv4" } else { "IPv6" };
    if service.str_at(&["spec", "clusterIP"]).is_empty()
        && let Some(first) = service.list_at(&["spec", "clusterIPs"]).first().cloned()
    {
        service.set(&["spec", "clusterIP"], first);
    }
    let selectorless = is_headless(service) && has_no_selector(service);
    if policy(service).is_empty() {
        let before = old.map(policy).filter(|policy| !policy.is_empty());
        let default = if selectorless { REQUIRE } else { SINGLE };
        let policy = before.unwrap_or(default).to_owned();
        service.set(&["spec", "ipFamilyPolicy"], policy);
    }
    let mut causes = Vec::new();
    if let Some(old) = old {
        narrow(service, old, &mut causes);
    }
    check_counts(service, &mut causes);
    infer(service, family, &mut causes);
    finish(writer, service, std::mem::take(&mut causes))?;
    if selectorless {
        // Without a selector, who makes the endpoints decides their families.
        let mut families = families(service);
        if families.is_empty() {
            families.push(family.to_owned());
        }
        if families.len() == 1 && policy(service) != SINGLE {
            families.push(other(&families[0]).to_owned());
        }
        set_families(service, &families);
        return Ok(());
    }
    if policy(service) == REQUIRE {
        causes.push(invalid(
            "spec.ipFamilyPolicy",
            format!("{REQUIRE:?}"),
            "this cluster is not configured for dual-stack services",
        ));
    }
    for (index, one) in families(service).iter().enumerate().filter(|(_, one)| *one != family) {
        causes.push(invalid(
            &format!("spec.ipFamilies[{index}]"),
            format!("{one:?}"),
            "not configured on this cluster",
        ));
    }
    finish(writer, service, causes)?;
    if families(service).is_empty() {
        set_families(service, &[family.to_owned()]);
    }
    Ok(())
}

/// Giving up the second family takes the policy that says so.
fn narrow(service: &mut Tree, old: &Tree, causes: &mut Vec<Cause>) {
    let (now, before) = (families(service), families(old));
    let (addresses_now, addresses_before) = (addresses(service), addresses(old));
    if policy(service) == SINGLE {
        if addresses_now == addresses_before && addresses_now.len() > 1 {
            let kept: Vec<Tree> = addresses_now.into_iter().take(1).map(Tree::from).collect();
            service.set(&["spec", "clusterIPs"], kept);
        }
        if now == before && now.len() > 1 {
            set_families(service, &now[..1]);
        }
        return;
    }
    let value = format!("{:?}", policy(service));
    // Nothing at all asks for what there was, which has been put in before.
    let reduced = |now: &[String], before: &[String]| now.len() == 1 && before.len() == 2 && now[0] == before[0];
    if reduced(&addresses_now, &addresses_before) {
        let why = "must be 'SingleStack' to release the secondary cluster IP";
        causes.push(invalid("spec.ipFamilyPolicy", value.clone(), why));
    }
    if reduced(&now, &before) {
        let why = "must be 'SingleStack' to release the secondary IP family";
        causes.push(invalid("spec.ipFamilyPolicy", value, why));
    }
}

fn check_counts(service: &Tree, causes: &mut Vec<Cause>) {
    if policy(service) != SINGLE {
        return;
    }
    for (count, what) in [(addresses(service).len(), "cluster IPs"), (families(service).len(), "IP families")] {
        if count == 2 {
            let why = format!("must be 'RequireDualStack' or 'PreferDualStack' when multiple {what} are specified");
            causes.push(invalid("spec.ipFamilyPolicy", format!("{SINGLE:?}"), &why));
        }
    }
}

/// Addresses that the client chose say their families.
fn infer(service: &mut Tree, family: &str, causes: &mut Vec<Cause>) {
    let mut known = families(service);
    let all = addresses(service);
    for (index, address) in all.iter().enumerate().skip(known.len()) {
        let found = match address.parse::<std::net::IpAddr>() {
            Ok(ip) if ip.is_ipv4() => "IPv4",
            Ok(_) => "IPv6",
            // `None`, or no address at all, which validation tells.
            Err(_) => break,
        };
        if found == family {
            known.push(found.to_owned());
        } else {
            let value = format!("[{}]", all.iter().map(|one| format!("{one:?}")).collect::<Vec<_>>().join(","));
            let field = format!("spec.clusterIPs[{index}]");
            causes.push(invalid(&field, value, &format!("{found} is not configured on this cluster")));
        }
    }
    if !known.is_empty() {
        set_families(service, &known);
    }
}

fn invalid(field: &str, value: String, why: &str) -> Cause {
    Cause {
        reason: "FieldValueInvalid".to_owned(),
        message: format!("Invalid value: {value}: {why}"),
        field: field.to_owned(),
    }
}

fn finish(writer: &Writer<'_>, service: &Tree, causes: Vec<Cause>) -> ApiResult<()> {
    if causes.is_empty() {
        return Ok(());
    }
    Err(ApiError::invalid(writer.subject.kind_name(), meta::name(service), causes))
}

fn policy(service: &Tree) -> &str {
    service.str_at(&["spec", "ipFamilyPolicy"])
}

fn texts(service: &Tree, field: &str) -> Vec<String> {
    service.list_at(&["spec", field]).iter().filter_map(Tree::as_str).map(str::to_owned).collect()
}

fn families(service: &Tree) -> Vec<String> {
    texts(service, "ipFamilies")
}

/// `clusterIPs`, or the one `clusterIP`.
fn addresses(service: &Tree) -> Vec<String> {
    let listed = texts(service, "clusterIPs");
    let one = service.str_at(&["spec", "clusterIP"]);
    if listed.is_empty() && !one.is_empty() { vec![one.to_owned()] } else { listed }
}

fn set_families(service: &mut Tree, families: &[String]) {
    service.set(&["spec", "ipFamilies"], families.iter().map(|one| Tree::from(one.as_str())).collect::<Vec<_>>());
}

fn has_no_selector(service: &Tree) -> bool {
    match service.at(&["spec", "selector"]) {
        Some(Tree::Map(selector)) => selector.is_empty(),
        _ => true,
    }
}

fn other(family: &str) -> &'static str {
    if family == "IPv4" { "IPv6" } else { "IPv4" }
}
