//! Amounts: quantities to numbers, quality of service, kernel values.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::pod::{PodView, Role};

/// The amounts of a container or node by resource name.
pub(crate) type Amounts = BTreeMap<String, Quantity>;

/// The kernel's smallest and largest `cpu.shares`, and its scheduling period in microseconds.
const SHARES_MIN: i64 = 2;
const SHARES_MAX: i64 = 262_144;
pub(crate) const QUOTA_PERIOD_US: i64 = 100_000;
/// Below this the kernel refuses a quota.
const QUOTA_MIN_US: i64 = 1_000;

/// A quantity in thousandths, rounded up; `None` when the text is no quantity.
pub(crate) fn milli(quantity: &Quantity) -> Option<i64> {
    let nano = nano(&quantity.0)?;
    i64::try_from((nano + 999_999).div_euclid(1_000_000)).ok()
}

/// A quantity in whole units, rounded up; `None` when the text is no quantity.
pub(crate) fn units(quantity: &Quantity) -> Option<i64> {
    let nano = nano(&quantity.0)?;
    i64::try_from((nano + 999_999_999).div_euclid(1_000_000_000)).ok()
}

fn nano(text: &str) -> Option<i128> {
    const GIGA: i128 = 1_000_000_000;
    let digits = text.find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '+' | '-'))).unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let (multiplier, divisor): (i128, i128) = match suffix {
        "" => (GIGA, 1),
        "n" => (1, 1),
        "u" => (1_000, 1),
        "m" => (1_000_000, 1),
        "k" => (GIGA * 1_000, 1),
        "M" => (GIGA * 1_000_000, 1),
        "G" => (GIGA * GIGA, 1),
        "T" => (GIGA * GIGA * 1_000, 1),
        "P" => (GIGA * GIGA * 1_000_000, 1),
        "E" => (GIGA * GIGA * GIGA, 1),
        "Ki" => (GIGA << 10, 1),
        "Mi" => (GIGA << 20, 1),
        "Gi" => (GIGA << 30, 1),
        "Ti" => (GIGA << 40, 1),
        "Pi" => (GIGA << 50, 1),
        "Ei" => (GIGA << 60, 1),
        exponent => {
            let power: i32 = exponent.strip_prefix(['e', 'E'])?.parse().ok()?;
            let scale = 10_i128.checked_pow(power.unsigned_abs())?;
            if power < 0 { (GIGA, scale) } else { (GIGA.checked_mul(scale)?, 1) }
        }
    };
    let negative = number.starts_with('-');
    let number = number.trim_start_matches(['+', '-']);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let fraction = &fraction[..fraction.len().min(9)];
    let scale = 10_i128.pow(u32::try_from(fraction.len()).ok()?);
    let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
    let value = digits.checked_mul(multiplier)? / (divisor * scale);
    Some(if negative { -value } else { value })
}

/// `requests[name]` or `limits[name]` of a container.
pub(crate) fn amount(of: Option<&ResourceRequirements>, side: Side, name: &str) -> Option<Quantity> {
    let of = of?;
    let map = match side {
        Side::Requests => of.requests.as_ref(),
        Side::Limits => of.limits.as_ref(),
    };
    map?.get(name).cloned()
}

/// Which of the two maps of a container's resources.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Side {
    Requests,
    Limits,
}

/// The quality of service class, as `status.qosClass` says it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Qos {
    Guaranteed,
    Burstable,
    BestEffort,
}

impl Qos {
    pub(crate) fn of(pod: &PodView) -> Self {
        match pod.pod.status.as_ref().and_then(|status| status.qos_class.as_deref()) {
            Some("Guaranteed") => return Self::Guaranteed,
            Some("Burstable") => return Self::Burstable,
            Some("BestEffort") => return Self::BestEffort,
            _ => {}
        }
        let mut any = false;
        let mut guaranteed = true;
        for spec in pod.containers.iter().filter(|spec| spec.role != Role::Ephemeral) {
            for name in ["cpu", "memory"] {
                let set = |side| {
                    amount(spec.container.resources.as_ref(), side, name)
                        .and_then(|quantity| milli(&quantity))
                        .filter(|value| *value > 0)
                };
                let (request, limit) = (set(Side::Requests), set(Side::Limits));
                any |= request.is_some() || limit.is_some();
                guaranteed &= limit.is_some() && (request.is_none() || request == limit);
            }
        }
        match (any, guaranteed) {
            (false, _) => Self::BestEffort,
            (true, true) => Self::Guaranteed,
            (true, false) => Self::Burstable,
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        }
    }

    /// The pod's cgroup below the node's, in the `cgroupfs` driver's layout.
    pub(crate) fn cgroup(self, root: &str, uid: &str) -> String {
        let root = root.trim_end_matches('/');
        match self {
            Self::Guaranteed => format!("{root}/kubepods/pod{uid}"),
            Self::Burstable => format!("{root}/kubepods/burstable/pod{uid}"),
            Self::BestEffort => format!("{root}/kubepods/besteffort/pod{uid}"),
        }
    }
}

/// What the kernel is told for one container or pod.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct KernelLimits {
    pub(crate) cpu_shares: i64,
    /// Microseconds per [`QUOTA_PERIOD_US`]; 0 is unlimited.
    pub(crate) cpu_quota_us: i64,
    /// 0 is unlimited.
    pub(crate) memory_bytes: i64,
}

impl KernelLimits {
    pub(crate) fn of(resources: Option<&ResourceRequirements>) -> Self {
        let cpu = |side| amount(resources, side, "cpu").and_then(|quantity| milli(&quantity));
        let limit = cpu(Side::Limits).unwrap_or(0);
        let request = cpu(Side::Requests).unwrap_or(limit);
        let memory = amount(resources, Side::Limits, "memory").and_then(|quantity| units(&quantity));
        Self::from_amounts(request, limit, memory.unwrap_or(0))
    }

    fn from_amounts(request_milli: i64, limit_milli: i64, memory_bytes: i64) -> Self {
        Self {
            cpu_shares: (request_milli * 1024 / 1000).clamp(SHARES_MIN, SHARES_MAX),
            cpu_quota_us: if limit_milli > 0 { (limit_milli * QUOTA_PERIOD_US / 1000).max(QUOTA_MIN_US) } else { 0 },
            memory_bytes,
        }
    }

    /// The limits of the pod's own cgroup: a limit holds only when every container has one.
    pub(crate) fn of_pod(pod: &PodView) -> Self {
        let apps: Vec<&Container> = pod
            .containers
            .iter()
            .filter(|spec| matches!(spec.role, Role::App | Role::Sidecar))
            .map(|spec| &spec.container)
            .collect();
        let inits: Vec<&Container> = pod.of(Role::Init).map(|spec| &spec.container).collect();
        let get = |container: &Container, side, name: &str| {
            amount(container.resources.as_ref(), side, name)
                .and_then(|quantity| milli(&quantity))
                .filter(|value| *value > 0)
        };
        let sum = |side, name: &str| {
            let apps = apps.iter().try_fold(0_i64, |sum, container| Some(sum + get(container, side, name)?));
            let inits = inits.iter().try_fold(0_i64, |max, container| Some(max.max(get(container, side, name)?)));
            Some(apps?.max(inits?))
        };
        let loose = |name: &str| {
            apps.iter()
                .filter_map(|container| {
                    get(container, Side::Requests, name).or_else(|| get(container, Side::Limits, name))
                })
                .sum::<i64>()
        };
        let memory = sum(Side::Limits, "memory").unwrap_or(0) / 1000;
        Self::from_amounts(loose("cpu"), sum(Side::Limits, "cpu").unwrap_or(0), memory)
    }
}

/// How early the kernel kills a container when memory runs out (−1000 never, 1000 first).
pub(crate) fn oom_score_adj(pod: &PodView, container: &Container, node_memory_bytes: i64) -> i64 {
    const GUARANTEED: i64 = -997;
    if pod.is_critical() {
        return GUARANTEED;
    }
    match Qos::of(pod) {
        Qos::Guaranteed => GUARANTEED,
        Qos::BestEffort => 1000,
        Qos::Burstable => {
            let request = amount(container.resources.as_ref(), Side::Requests, "memory")
                .and_then(|quantity| units(&quantity))
                .unwrap_or(0);
            let adj = 1000 - (i128::from(request) * 1000 / i128::from(node_memory_bytes.max(1))) as i64;
            // Between guaranteed and best effort, and never equal to either.
            if adj < 1000 + GUARANTEED { 1000 + GUARANTEED } else { adj.min(999) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, want_milli: Option<i64>) {
        assert_eq!(milli(&Quantity(text.into())), want_milli, "{text}");
    }

    #[test]
    fn quantities_become_thousandths() {
        check("100m", Some(100));
        check("1.5", Some(1500));
        check("1", Some(1000));
        check("64Mi", Some(64 * 1024 * 1024 * 1000));
        check("1e3", Some(1_000_000));
        check("1u", Some(1));
        check("", None);
        check("x", None);
        assert_eq!(units(&Quantity("128974848".into())), Some(128_974_848));
        assert_eq!(units(&Quantity("100m".into())), Some(1));
    }

    #[test]
    fn kernel_values_follow_the_kubelet() {
        let limits = KernelLimits::from_amounts(250, 500, 1);
        assert_eq!((limits.cpu_shares, limits.cpu_quota_us), (256, 50_000));
        assert_eq!(KernelLimits::from_amounts(0, 0, 0).cpu_shares, 2);
        assert_eq!(KernelLimits::from_amounts(1, 1, 0).cpu_quota_us, 1_000);
    }
}
