//! Usage of containers and sandboxes, read from their control groups when asked.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::Runtime;
use super::state::{Container, Sandbox};
use crate::cgroup::Usage;
use crate::cri as v1;

fn value(value: u64) -> Option<v1::UInt64Value> {
    Some(v1::UInt64Value { value })
}

impl Runtime {
    pub(super) fn container_stats_of(&self, container: &Container) -> v1::ContainerStats {
        let timestamp = self.now();
        let usage = self.0.cgroups.usage(&container.record.cgroup);
        let attributes = v1::ContainerAttributes {
            id: container.id.clone(),
            metadata: container.config.metadata.clone(),
            labels: container.config.labels.clone(),
            annotations: container.config.annotations.clone(),
        };
        let (bytes, inodes) = tree_size(&container.state_dir.join("upper"));
        v1::ContainerStats {
            attributes: Some(attributes),
            cpu: usage.map(|usage| cpu(timestamp, usage)),
            memory: usage.map(|usage| memory(timestamp, usage)),
            writable_layer: Some(v1::FilesystemUsage {
                timestamp,
                fs_id: Some(v1::FilesystemIdentifier {
                    mountpoint: self.0.config.data_dir.join("containers").display().to_string(),
                }),
                used_bytes: value(bytes),
                inodes_used: value(inodes),
            }),
            swap: usage.map(|usage| v1::SwapUsage {
                timestamp,
                swap_available_bytes: value(0),
                swap_usage_bytes: value(usage.swap_bytes),
            }),
            io: None,
        }
    }

    pub(super) fn sandbox_stats_of(&self, sandbox: &Sandbox) -> v1::PodSandboxStats {
        let timestamp = self.now();
        let cgroup = sandbox.state.lock().record.cgroup.clone();
        // The pod's group holds the pause process and all containers.
        let parent = cgroup.rsplit_once('/').map_or("", |(parent, _)| parent);
        let usage = if parent.is_empty() { self.0.cgroups.usage(&cgroup) } else { self.0.cgroups.usage(parent) };
        let containers = self.containers_of(&sandbox.id);
        let running = containers.iter().filter(|container| container.phase() == v1::ContainerState::ContainerRunning);
        let pause = sandbox.state.lock().pause.as_ref().map(|pause| pause.pid);
        let linux = v1::LinuxPodSandboxStats {
            cpu: usage.map(|usage| cpu(timestamp, usage)),
            memory: usage.map(|usage| memory(timestamp, usage)),
            network: pause.filter(|_| sandbox.own_network()).and_then(|pid| network(timestamp, pid)),
            process: usage.map(|usage| v1::ProcessUsage { timestamp, process_count: value(usage.processes) }),
            containers: running.map(|container| self.container_stats_of(container)).collect(),
            io: None,
        };
        v1::PodSandboxStats {
            attributes: Some(v1::PodSandboxAttributes {
                id: sandbox.id.clone(),
                metadata: sandbox.config.metadata.clone(),
                labels: sandbox.config.labels.clone(),
                annotations: sandbox.config.annotations.clone(),
            }),
            linux: Some(linux),
            windows: None,
        }
    }
}

fn cpu(timestamp: i64, usage: Usage) -> v1::CpuUsage {
    v1::CpuUsage {
        timestamp,
        usage_core_nano_seconds: value(usage.cpu_nanos),
        // A rate needs two readings; who asks periodically has them.
        usage_nano_cores: None,
        psi: None,
    }
}

fn memory(timestamp: i64, usage: Usage) -> v1::MemoryUsage {
    let available = usage.memory_limit_bytes.map(|limit| limit.saturating_sub(usage.memory_working_set_bytes));
    v1::MemoryUsage {
        timestamp,
        working_set_bytes: value(usage.memory_working_set_bytes),
        available_bytes: available.map(|value| v1::UInt64Value { value }),
        usage_bytes: value(usage.memory_bytes),
        rss_bytes: value(usage.memory_rss_bytes),
        page_faults: value(usage.page_faults),
        major_page_faults: value(usage.major_page_faults),
        psi: None,
    }
}

/// The interfaces of a process's network namespace.
fn network(timestamp: i64, pid: i32) -> Option<v1::NetworkUsage> {
    let text = fs::read_to_string(format!("/proc/{pid}/net/dev")).ok()?;
    let interfaces = parse_interfaces(&text);
    let default_interface = interfaces.iter().find(|interface| interface.name == "eth0").cloned();
    Some(v1::NetworkUsage { timestamp, default_interface, interfaces })
}

fn parse_interfaces(text: &str) -> Vec<v1::NetworkInterfaceUsage> {
    let lines = text.lines().skip(2).filter_map(|line| {
        let (name, counters) = line.split_once(':')?;
        let counters: Vec<u64> = counters.split_whitespace().filter_map(|counter| counter.parse().ok()).collect();
        let counter = |index: usize| value(counters.get(index).copied().unwrap_or(0));
        Some(v1::NetworkInterfaceUsage {
            name: name.trim().to_owned(),
            rx_bytes: counter(0),
            rx_errors: counter(2),
            tx_bytes: counter(8),
            tx_errors: counter(10),
        })
    });
    lines.filter(|interface| interface.name != "lo").collect()
}

/// Deeper trees are not counted further; a path cannot be longer anyway.
const DEPTH_MAX: u32 = 2_048;

/// Bytes on disk and inodes of a tree.
pub(crate) fn tree_size(root: &Path) -> (u64, u64) {
    let (mut bytes, mut inodes) = (0, 0);
    let mut pending = vec![(root.to_path_buf(), 0)];
    while let Some((dir, depth)) = pending.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let Ok(found) = entry.metadata() else { continue };
            bytes += found.blocks() * 512;
            inodes += 1;
            if found.is_dir() && depth < DEPTH_MAX {
                pending.push((entry.path(), depth + 1));
            }
        }
    }
    (bytes, inodes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_counters_are_found() {
        let text = "Inter-|   Receive  |  Transmit\n face |bytes packets ...\n    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n  \
                    eth0: 100 2 3 0 0 0 0 0 200 4 5 0 0 0 0 0\n";
        let found = parse_interfaces(text);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].rx_errors, value(3));
        assert_eq!(found[0].tx_bytes, value(200));
    }
}
