//! Whether a pod fits this node, whoever placed it here.

use std::collections::BTreeSet;

use crate::observed::Waiting;
use crate::pod::{PodView, Role};
use crate::resources::{Amounts, Side, amount, milli};

/// What the pods of the node have taken.
#[derive(Clone, Debug, Default)]
pub(crate) struct Taken {
    pods: usize,
    cpu_milli: i64,
    memory_milli: i64,
    ports: BTreeSet<(String, i32)>,
}

impl Taken {
    pub(crate) fn of<'a>(pods: impl Iterator<Item = &'a PodView>) -> Self {
        let mut taken = Self::default();
        for pod in pods {
            taken.pods += 1;
            taken.cpu_milli += request(pod, "cpu");
            taken.memory_milli += request(pod, "memory");
            taken.ports.extend(host_ports(pod));
        }
        taken
    }
}

/// The pod's request in thousandths: the larger of its apps and sidecars together and each init
/// container beside the sidecars started before it, plus overhead.
fn request(pod: &PodView, name: &str) -> i64 {
    let of = |container: &k8s_openapi::api::core::v1::Container| {
        let get = |side| amount(container.resources.as_ref(), side, name).and_then(|quantity| milli(&quantity));
        get(Side::Requests).or_else(|| get(Side::Limits)).unwrap_or(0)
    };
    let apps: i64 = pod.of(Role::App).map(|spec| of(&spec.container)).sum();
    let (mut sidecars, mut peak) = (0, 0);
    for spec in pod.starters() {
        let own = of(&spec.container);
        if spec.role == Role::Sidecar {
            sidecars += own;
            peak = peak.max(sidecars);
        } else {
            peak = peak.max(sidecars + own);
        }
    }
    let overhead = pod.spec().overhead.as_ref().and_then(|overhead| overhead.get(name)).and_then(milli).unwrap_or(0);
    (apps + sidecars).max(peak) + overhead
}

fn host_ports(pod: &PodView) -> impl Iterator<Item = (String, i32)> + '_ {
    pod.of(Role::App).chain(pod.of(Role::Sidecar)).flat_map(|spec| spec.container.ports.iter().flatten()).filter_map(
        |port| {
            let number = port.host_port.filter(|number| *number > 0)?;
            Some((port.protocol.clone().unwrap_or_else(|| "TCP".into()), number))
        },
    )
}

/// Why the node refuses the pod; `None` when it fits.
pub(crate) fn admit(pod: &PodView, taken: &Taken, allocatable: &Amounts) -> Option<Waiting> {
    let capacity = |name: &str| allocatable.get(name).and_then(milli).unwrap_or(0);
    let refuse = |name: &str, requested: i64, used: i64, capacity: i64| {
        let message = format!(
            "Pod was rejected: Node didn't have enough resource: {name}, requested: {requested}, used: {used}, capacity: {capacity}"
        );
        Some(Waiting::new(&format!("OutOf{name}"), message))
    };
    let pods = capacity("pods") / 1000;
    let used = i64::try_from(taken.pods).unwrap_or(i64::MAX);
    if used >= pods {
        return refuse("pods", 1, used, pods);
    }
    let cpu = request(pod, "cpu");
    if cpu > 0 && taken.cpu_milli + cpu > capacity("cpu") {
        return refuse("cpu", cpu, taken.cpu_milli, capacity("cpu"));
    }
    let memory = request(pod, "memory");
    if memory > 0 && taken.memory_milli + memory > capacity("memory") {
        return refuse("memory", memory / 1000, taken.memory_milli / 1000, capacity("memory") / 1000);
    }
    let busy = host_ports(pod).any(|port| taken.ports.contains(&port));
    busy.then(|| {
        Waiting::new(
            "NodePorts",
            "Pod was rejected: Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports",
        )
    })
}
