//! Statistics: `/stats/summary`, `/metrics/resource`, `/metrics`.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;

use http::StatusCode;
use serde_json::{Value, json};
use skiff_base::Timestamp;
use skiff_runtime::cri;

use super::{Answer, full};
use crate::cri::{CONTAINER_NAME, POD_NAME, POD_NAMESPACE, POD_UID};
use crate::node::{Node, meminfo};
use crate::observed::Run;
use crate::pod::rfc3339_nano;

/// The text format of Prometheus.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

async fn container_stats(node: &Node) -> Vec<cri::ContainerStats> {
    match node.runtime.list_container_stats(cri::ListContainerStatsRequest::default()).await {
        Ok(answer) => answer.stats,
        Err(error) => {
            tracing::debug!(%error, "the runtime gives no statistics");
            Vec::new()
        }
    }
}

fn value(number: Option<&cri::UInt64Value>) -> u64 {
    number.map_or(0, |number| number.value)
}

fn label<'a>(stats: &'a cri::ContainerStats, key: &str) -> &'a str {
    stats.attributes.as_ref().and_then(|attributes| attributes.labels.get(key)).map_or("", String::as_str)
}

fn cpu_nanos(stats: &cri::ContainerStats) -> u64 {
    value(stats.cpu.as_ref().and_then(|cpu| cpu.usage_core_nano_seconds.as_ref()))
}

fn working_set(stats: &cri::ContainerStats) -> u64 {
    value(stats.memory.as_ref().and_then(|memory| memory.working_set_bytes.as_ref()))
}

/// When each container of the node was started, by its id in the runtime.
fn starts(node: &Node) -> HashMap<String, Timestamp> {
    let mut starts = HashMap::new();
    for handle in node.pods.lock().values() {
        for container in &handle.observed().containers {
            starts.insert(container.id.clone(), container.started_at);
        }
    }
    starts
}

fn start_of(stats: &cri::ContainerStats, starts: &HashMap<String, Timestamp>) -> Option<Timestamp> {
    let id = &stats.attributes.as_ref()?.id;
    starts.get(id).copied().filter(|started| *started > Timestamp::from_secs(0))
}

/// When the machine was started.
fn boot_time() -> Option<Timestamp> {
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("btime "))?;
    line.trim().parse().ok().map(Timestamp::from_secs)
}

/// `/stats/summary`.
pub(super) async fn summary(node: &Node) -> Answer {
    let now = crate::pod::to_time(node.clock.now());
    let stats = container_stats(node).await;
    let starts = starts(node);
    let mut pods: BTreeMap<String, (Value, Vec<Value>, u64, u64)> = BTreeMap::new();
    for one in &stats {
        let identity =
            json!({"name": label(one, POD_NAME), "namespace": label(one, POD_NAMESPACE), "uid": label(one, POD_UID)});
        let entry = pods.entry(label(one, POD_UID).to_owned()).or_insert_with(|| (identity, Vec::new(), 0, 0));
        entry.2 += cpu_nanos(one);
        entry.3 += working_set(one);
        entry.1.push(container(one, start_of(one, &starts), &now));
    }
    let pods: Vec<Value> = pods
        .into_values()
        .map(|(identity, containers, cpu, memory)| {
            json!({
                "podRef": identity,
                "containers": containers,
                "cpu": {"time": now, "usageCoreNanoSeconds": cpu},
                "memory": {"time": now, "workingSetBytes": memory, "usageBytes": memory},
            })
        })
        .collect();
    super::json(&json!({"node": machine(node, &now), "pods": pods}))
}

fn container(stats: &cri::ContainerStats, started: Option<Timestamp>, now: &impl serde::Serialize) -> Value {
    let memory = stats.memory.unwrap_or_default();
    let cpu = stats.cpu.unwrap_or_default();
    json!({
        "name": label(stats, CONTAINER_NAME),
        "startTime": started.map(crate::pod::to_time),
        "cpu": {
            "time": now,
            "usageNanoCores": value(cpu.usage_nano_cores.as_ref()),
            "usageCoreNanoSeconds": value(cpu.usage_core_nano_seconds.as_ref()),
        },
        "memory": {
            "time": now,
            "usageBytes": value(memory.usage_bytes.as_ref()),
            "workingSetBytes": value(memory.working_set_bytes.as_ref()),
            "rssBytes": value(memory.rss_bytes.as_ref()),
            "pageFaults": value(memory.page_faults.as_ref()),
            "majorPageFaults": value(memory.major_page_faults.as_ref()),
        },
        "rootfs": {
            "time": now,
            "usedBytes": stats.writable_layer.as_ref().map_or(0, |layer| value(layer.used_bytes.as_ref())),
        },
    })
}

fn machine(node: &Node, now: &impl serde::Serialize) -> Value {
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let available = meminfo(&memory, "MemAvailable:").unwrap_or(0);
    let disk = nix::sys::statvfs::statvfs(&node.config.data_dir).ok();
    let bytes = |blocks: fn(&nix::sys::statvfs::Statvfs) -> u64| {
        disk.as_ref().map_or(0, |stat| blocks(stat).saturating_mul(stat.fragment_size()))
    };
    json!({
        "nodeName": node.config.name,
        "startTime": boot_time().map(crate::pod::to_time),
        "cpu": {"time": now, "usageCoreNanoSeconds": machine_cpu_nanos()},
        "memory": {
            "time": now,
            "availableBytes": available,
            "workingSetBytes": (node.machine.memory_bytes - available).max(0),
            "usageBytes": (node.machine.memory_bytes - meminfo(&memory, "MemFree:").unwrap_or(0)).max(0),
        },
        "fs": {
            "time": now,
            "capacityBytes": bytes(nix::sys::statvfs::Statvfs::blocks),
            "availableBytes": bytes(nix::sys::statvfs::Statvfs::blocks_available),
            "usedBytes": bytes(nix::sys::statvfs::Statvfs::blocks).saturating_sub(bytes(nix::sys::statvfs::Statvfs::blocks_free)),
        },
    })
}

/// Time all processors spent not idle.
fn machine_cpu_nanos() -> u64 {
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields = text
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(1)
        .filter_map(|field| field.parse::<u64>().ok());
    let busy: u64 =
        fields.enumerate().filter(|(index, _)| !matches!(index, 3 | 4)).take(6).map(|(_, ticks)| ticks).sum();
    // The kernel counts hundredths of a second for user space.
    busy * 10_000_000
}

/// `/metrics/resource`.
pub(super) async fn resource_metrics(node: &Node) -> Answer {
    let stats = container_stats(node).await;
    let mut out = String::new();
    let now_ms = node.clock.now().as_nanos() / 1_000_000;
    let mut series = |name: &str, kind: &str, help: &str, of: &dyn Fn(&cri::ContainerStats) -> f64| {
        let _ = writeln!(out, "# HELP {name} [STABLE] {help}\n# TYPE {name} {kind}");
        for one in &stats {
            let (container, namespace, pod) =
                (label(one, CONTAINER_NAME), label(one, POD_NAMESPACE), label(one, POD_NAME));
            let _ = writeln!(
                out,
                "{name}{{container=\"{container}\",namespace=\"{namespace}\",pod=\"{pod}\"}} {} {now_ms}",
                of(one)
            );
        }
    };
    series("container_cpu_usage_seconds_total", "counter", "CPU time used by the container in seconds", &|one| {
        cpu_nanos(one) as f64 / 1e9
    });
    series("container_memory_working_set_bytes", "gauge", "Working set of the container in bytes", &|one| {
        working_set(one) as f64
    });
    resource_totals(&mut out, &stats, &starts(node), now_ms);
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let used = (node.machine.memory_bytes - meminfo(&memory, "MemAvailable:").unwrap_or(0)).max(0);
    let _ = writeln!(out, "# HELP node_cpu_usage_seconds_total [STABLE] CPU time used by the node in seconds");
    let _ = writeln!(out, "# TYPE node_cpu_usage_seconds_total counter");
    let _ = writeln!(out, "node_cpu_usage_seconds_total {} {now_ms}", machine_cpu_nanos() as f64 / 1e9);
    let _ = writeln!(out, "# HELP node_memory_working_set_bytes [STABLE] Working set of the node in bytes");
    let _ = writeln!(out, "# TYPE node_memory_working_set_bytes gauge");
    let _ = writeln!(out, "node_memory_working_set_bytes {used} {now_ms}");
    let _ = writeln!(out, "# HELP resource_scrape_error [STABLE] 1 if there was an error while getting the numbers");
    let _ = writeln!(out, "# TYPE resource_scrape_error gauge\nresource_scrape_error 0");
    full(StatusCode::OK, METRICS, out)
}

/// Starts of containers, and what their pods use together.
fn resource_totals(out: &mut String, stats: &[cri::ContainerStats], starts: &HashMap<String, Timestamp>, now_ms: i64) {
    const STARTED: &str = "container_start_time_seconds";
    let _ = writeln!(out, "# HELP {STARTED} [STABLE] Start of the container since the epoch in seconds");
    let _ = writeln!(out, "# TYPE {STARTED} gauge");
    let mut pods: BTreeMap<(&str, &str), (f64, u64)> = BTreeMap::new();
    for one in stats {
        let (container, namespace, pod) = (label(one, CONTAINER_NAME), label(one, POD_NAMESPACE), label(one, POD_NAME));
        if let Some(started) = start_of(one, starts) {
            let seconds = started.as_nanos() as f64 / 1e9;
            let _ = writeln!(
                out,
                "{STARTED}{{container=\"{container}\",namespace=\"{namespace}\",pod=\"{pod}\"}} {seconds} {now_ms}"
            );
        }
        let entry = pods.entry((namespace, pod)).or_default();
        entry.0 += cpu_nanos(one) as f64 / 1e9;
        entry.1 += working_set(one);
    }
    let _ = writeln!(out, "# HELP pod_cpu_usage_seconds_total [STABLE] CPU time used by the pod in seconds");
    let _ = writeln!(out, "# TYPE pod_cpu_usage_seconds_total counter");
    for ((namespace, pod), (seconds, _)) in &pods {
        let _ =
            writeln!(out, "pod_cpu_usage_seconds_total{{namespace=\"{namespace}\",pod=\"{pod}\"}} {seconds} {now_ms}");
    }
    let _ = writeln!(out, "# HELP pod_memory_working_set_bytes [STABLE] Working set of the pod in bytes");
    let _ = writeln!(out, "# TYPE pod_memory_working_set_bytes gauge");
    for ((namespace, pod), (_, bytes)) in &pods {
        let _ =
            writeln!(out, "pod_memory_working_set_bytes{{namespace=\"{namespace}\",pod=\"{pod}\"}} {bytes} {now_ms}");
    }
}

/// `/metrics/cadvisor`: what cAdvisor would say, as far as the runtime tells it.
pub(super) async fn cadvisor(node: &Node) -> Answer {
    type Of = fn(&cri::ContainerStats) -> f64;
    const SERIES: [(&str, &str, &str, Of); 5] = [
        ("container_cpu_usage_seconds_total", "counter", "CPU time used in seconds", |one| cpu_nanos(one) as f64 / 1e9),
        ("container_memory_usage_bytes", "gauge", "Memory used in bytes, caches included", |one| {
            value(one.memory.as_ref().and_then(|memory| memory.usage_bytes.as_ref())) as f64
        }),
        ("container_memory_working_set_bytes", "gauge", "Working set in bytes", |one| working_set(one) as f64),
        ("container_memory_rss", "gauge", "Resident memory in bytes", |one| {
            value(one.memory.as_ref().and_then(|memory| memory.rss_bytes.as_ref())) as f64
        }),
        ("container_fs_usage_bytes", "gauge", "Bytes of the writable layer", |one| {
            value(one.writable_layer.as_ref().and_then(|layer| layer.used_bytes.as_ref())) as f64
        }),
    ];
    let stats = container_stats(node).await;
    let now_ms = node.clock.now().as_nanos() / 1_000_000;
    let mut out = String::new();
    for (name, kind, help, of) in SERIES {
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for one in &stats {
            let id = one.attributes.as_ref().map_or("", |attributes| attributes.id.as_str());
            let (container, namespace, pod) =
                (label(one, CONTAINER_NAME), label(one, POD_NAMESPACE), label(one, POD_NAME));
            let _ = writeln!(
                out,
                "{name}{{container=\"{container}\",id=\"{id}\",name=\"{id}\",namespace=\"{namespace}\",pod=\"{pod}\"}} {} {now_ms}",
                of(one)
            );
        }
    }
    let _ =
        writeln!(out, "# HELP machine_memory_bytes Memory of the machine in bytes\n# TYPE machine_memory_bytes gauge");
    let _ = writeln!(out, "machine_memory_bytes {}", node.machine.memory_bytes);
    let _ = writeln!(out, "# HELP machine_cpu_cores Processors of the machine\n# TYPE machine_cpu_cores gauge");
    let _ = writeln!(out, "machine_cpu_cores {}", node.machine.cpu_milli as f64 / 1e3);
    full(StatusCode::OK, METRICS, out)
}

/// `/metrics`.
pub(super) fn metrics(node: &Node) -> Answer {
    let (mut pods, mut containers) = (0, 0);
    for handle in node.pods.lock().values() {
        let observed = handle.observed();
        pods += usize::from(observed.ready_sandbox().is_some());
        containers += observed.containers.iter().filter(|container| container.run == Run::Running).count();
    }
    let now = rfc3339_nano(node.clock.now());
    let text = format!(
        "# HELP kubelet_running_pods [BETA] Number of pods that have a running pod sandbox\n\
         # TYPE kubelet_running_pods gauge\nkubelet_running_pods {pods}\n\
         # HELP kubelet_running_containers [BETA] Number of containers currently running\n\
         # TYPE kubelet_running_containers gauge\nkubelet_running_containers{{container_state=\"running\"}} {containers}\n\
         # HELP kubelet_node_name [ALPHA] The node's name. The count is always 1.\n\
         # TYPE kubelet_node_name gauge\nkubelet_node_name{{node=\"{}\"}} 1\n# rendered {now}\n",
        node.config.name
    );
    full(StatusCode::OK, METRICS, text)
}
