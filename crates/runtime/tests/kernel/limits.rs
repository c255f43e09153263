//! What a container may and may not do.

use std::path::Path;

use skiff_runtime::RuntimeService;
use skiff_runtime::cri as v1;

use crate::Outcome;
use crate::machine::{Machine, groups, security, sh};

const STATUS: &str = "grep -E 'CapEff|CapBnd|CapInh|NoNewPrivs|Seccomp:' /proc/self/status";

pub(crate) async fn a_container_is_confined(machine: &Machine) -> Outcome {
    let script = format!(
        "{STATUS}; ls /dev; mount | wc -l; grep -c skiff-runtime /proc/self/mountinfo; \
         mknod /tmp/disk b 254 0 && head -c 1 /tmp/disk; mount -t tmpfs x /tmp; ps | wc -l; cat /proc/1/comm; \
         ip link | grep -c UP; ls / ; mkdir /sys/fs/cgroup/memory/x"
    );
    let (_, output) = machine.script("confined", |_| {}, &script).await?;
    assert!(output.contains("CapEff:\t00000000a80425fb\nCapBnd:\t00000000a80425fb\n"), "{output}");
    assert!(output.contains("CapInh:\t0000000000000000\n"), "{output}");
    assert!(output.contains("NoNewPrivs:\t0\nSeccomp:\t0\n"), "{output}");
    assert!(output.contains("/tmp/disk: Operation not permitted"), "{output}");
    assert!(output.contains("mount: permission denied"), "{output}");
    assert!(output.contains("Read-only file system") || output.contains("No such file"), "{output}");
    for name in ["null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts", "shm", "mqueue", "stdin"] {
        assert!(output.lines().any(|line| line == name), "no /dev/{name} in {output}");
    }
    assert!(!output.lines().any(|line| line.starts_with("vda")), "{output}");
    Ok(())
}

pub(crate) async fn seccomp_denies_what_the_default_profile_denies(machine: &Machine) -> Outcome {
    let default = |config: &mut v1::ContainerConfig| {
        security(config).seccomp = Some(v1::SecurityProfile {
            profile_type: v1::security_profile::ProfileType::RuntimeDefault as i32,
            localhost_ref: String::new(),
        });
        security(config).no_new_privs = true;
        // The capability is there, so it is the filter that refuses.
        security(config).capabilities =
            Some(v1::Capability { add_capabilities: vec!["SYS_ADMIN".into()], ..v1::Capability::default() });
    };
    let script = format!("{STATUS}; mount -t tmpfs x /tmp && echo mounted; hostname other && echo renamed");
    let (_, output) = machine.script("seccomp", default, &script).await?;
    assert!(output.contains("NoNewPrivs:\t1\nSeccomp:\t2\n"), "{output}");
    // SYS_ADMIN opens these calls in the profile.
    assert!(output.contains("mounted\nrenamed\n"), "{output}");

    let profile = machine.dir.path().join("profile.json");
    std::fs::write(
        &profile,
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":13}]}"#,
    )?;
    let local = |config: &mut v1::ContainerConfig| {
        security(config).seccomp = Some(v1::SecurityProfile {
            profile_type: v1::security_profile::ProfileType::Localhost as i32,
            localhost_ref: profile.display().to_string(),
        });
    };
    let (_, output) = machine.script("local", local, "mkdir /tmp/x; echo $?").await?;
    // Two streams: their order in the log is not defined.
    assert!(output.contains("Permission denied\n") && output.lines().any(|line| line == "1"), "{output}");
    Ok(())
}

pub(crate) async fn capabilities_and_users_are_dropped(machine: &Machine) -> Outcome {
    let change = |config: &mut v1::ContainerConfig| {
        let security = security(config);
        security.run_as_user = Some(v1::Int64Value { value: 1000 });
        security.run_as_group = Some(v1::Int64Value { value: 2000 });
        security.capabilities = Some(v1::Capability {
            drop_capabilities: vec!["ALL".into()],
            add_capabilities: vec!["NET_BIND_SERVICE".into()],
            ..v1::Capability::default()
        });
    };
    let script =
        format!("{STATUS}; id -u; id -g; touch /etc/x; echo to-stdout > /dev/stdout; echo to-stderr > /dev/stderr");
    let (_, output) = machine.script("dropped", change, &script).await?;
    assert!(output.contains("CapEff:\t0000000000000000\nCapBnd:\t0000000000000400\n"), "{output}");
    assert!(output.contains("1000\n2000\n"), "{output}");
    assert!(output.contains("touch: /etc/x: Permission denied"), "{output}");
    assert!(output.contains("to-stdout\n") && output.contains("to-stderr\n"), "{output}");

    let ambient = |config: &mut v1::ContainerConfig| {
        let security = security(config);
        security.run_as_user = Some(v1::Int64Value { value: 1000 });
        security.capabilities = Some(v1::Capability {
            add_ambient_capabilities: vec!["NET_BIND_SERVICE".into()],
            ..v1::Capability::default()
        });
    };
    let (_, output) = machine.script("ambient", ambient, STATUS).await?;
    assert!(output.contains("CapEff:\t0000000000000400\n"), "{output}");
    Ok(())
}

pub(crate) async fn memory_and_cpu_limits_are_set_and_an_oom_kill_is_told(machine: &Machine) -> Outcome {
    let pod = machine.run_pod(machine.pod("limits")).await?;
    let mut config = sh("limits", "head -c 100000000 /dev/zero | while read -r x; do :; done; sleep 1000");
    config.command[2] =
        "dd if=/dev/zero of=/dev/null bs=200M count=1; echo $?; exec dd if=/dev/zero of=/dev/null bs=200M".into();
    let resources = config.linux.as_mut().unwrap().resources.as_mut().unwrap();
    resources.memory_limit_in_bytes = 32 * 1024 * 1024;
    resources.memory_swap_limit_in_bytes = 32 * 1024 * 1024;
    resources.cpu_quota = 50_000;
    resources.cpu_period = 100_000;
    resources.oom_score_adj = 900;
    let id = machine.run(&pod, config).await?;
    let status = machine.wait(&id).await?;
    assert_eq!((status.exit_code, status.reason.as_str()), (137, "OOMKilled"));
    assert!(machine.output("limits").contains("137\n"));

    let mut config = sh("update", "cat /proc/self/oom_score_adj; sleep 1000");
    config.linux.as_mut().unwrap().resources.as_mut().unwrap().oom_score_adj = -997;
    config.linux.as_mut().unwrap().resources.as_mut().unwrap().cpu_shares = 512;
    let id = machine.run(&pod, config).await?;
    let read = |file: &str| {
        let path = format!("{}/pod-limits/{id}", machine.cgroup);
        groups(&path).iter().find_map(|group| std::fs::read_to_string(group.join(file)).ok())
    };
    let v2 = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    if !v2 {
        assert_eq!(read("cpu.shares").as_deref(), Some("512\n"));
    }
    let linux =
        v1::LinuxContainerResources { memory_limit_in_bytes: 64 << 20, ..v1::LinuxContainerResources::default() };
    let request = v1::UpdateContainerResourcesRequest {
        container_id: id.clone(),
        linux: Some(linux),
        ..v1::UpdateContainerResourcesRequest::default()
    };
    machine.runtime().update_container_resources(request).await?;
    let file = if v2 { "memory.max" } else { "memory.limit_in_bytes" };
    assert_eq!(read(file).unwrap().trim(), (64 << 20).to_string());
    let resources = machine.status(&id).await?.resources.unwrap().linux.unwrap();
    assert_eq!((resources.memory_limit_in_bytes, resources.cpu_shares), (64 << 20, 512));
    Ok(())
}

pub(crate) async fn a_read_only_root_is_read_only(machine: &Machine) -> Outcome {
    let change = |config: &mut v1::ContainerConfig| security(config).readonly_rootfs = true;
    let (_, output) =
        machine.script("readonly", change, "touch /x; touch /dev/shm/y && echo shm; echo z > /etc/hosts").await?;
    assert!(output.contains("touch: /x: Read-only file system"), "{output}");
    assert!(output.contains("shm\n"), "{output}");
    assert!(output.contains("can't create /etc/hosts: Read-only file system"), "{output}");
    Ok(())
}

pub(crate) async fn a_privileged_container_is_not_confined(machine: &Machine) -> Outcome {
    let change = |config: &mut v1::ContainerConfig| security(config).privileged = true;
    let script = "mount -t tmpfs x /tmp && echo mounted; echo 1 > /proc/sys/net/ipv4/ip_forward && echo written; ls /dev | wc -l";
    let (_, output) = machine.script("privileged", change, script).await?;
    assert!(output.starts_with("mounted\nwritten\n"), "{output}");
    assert!(output.lines().last().unwrap().parse::<u32>()? > 20, "{output}");
    Ok(())
}

pub(crate) async fn statistics_are_read(machine: &Machine) -> Outcome {
    let pod = machine.run_pod(machine.pod("stats")).await?;
    let id = machine.run(&pod, sh("stats", "echo 0123456789 > /tmp/file; while :; do sleep 0.01; done")).await?;
    let request = v1::ContainerStatsRequest { container_id: id.clone() };
    crate::machine::eventually("the container has used memory and disk", || async {
        let stats = machine.runtime().container_stats(request.clone()).await.unwrap().stats.unwrap();
        let memory = stats.memory.unwrap();
        stats.cpu.unwrap().usage_core_nano_seconds.unwrap().value > 0
            && memory.usage_bytes.unwrap().value > 0
            && stats.writable_layer.unwrap().used_bytes.unwrap().value >= 4_096
    })
    .await?;
    let request = v1::PodSandboxStatsRequest { pod_sandbox_id: pod };
    let linux = machine.runtime().pod_sandbox_stats(request).await?.stats.unwrap().linux.unwrap();
    assert!(linux.process.unwrap().process_count.unwrap().value >= 2);
    assert_eq!(linux.containers.len(), 1);
    Ok(())
}
