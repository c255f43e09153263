//! Life of a container as its pod describes it.

use std::path::Path;

use futures::StreamExt;
use skiff_runtime::RuntimeService;
use skiff_runtime::cri as v1;
use tonic::Code;

use crate::Outcome;
use crate::machine::{IMAGE, Machine, PATIENCE, sh};

pub(crate) async fn a_container_runs_and_reports_its_exit_code(machine: &Machine) -> Outcome {
    let pod = machine.run_pod(machine.pod("one")).await?;
    let id = machine.create(&pod, sh("one", "echo hello; exit 7")).await?;
    assert_eq!(machine.status(&id).await?.state, v1::ContainerState::ContainerCreated as i32);
    machine.start_container(&id).await?;
    let status = machine.wait(&id).await?;
    assert_eq!((status.exit_code, status.reason.as_str()), (7, "Error"));
    assert!(status.started_at > status.created_at && status.finished_at > status.started_at);
    assert_eq!(machine.output("one"), "hello\n");
    assert_eq!(status.user.unwrap().linux.unwrap().uid, 0);

    let id = machine.run(&pod, sh("two", "kill -9 $$")).await?;
    // The first process of a namespace does not die of its own signals.
    let status = machine.wait(&id).await?;
    assert_eq!(status.exit_code, 0);
    assert_eq!(status.reason, "Completed");
    Ok(())
}

pub(crate) async fn logs_are_in_cri_format_and_can_be_rotated(machine: &Machine) -> Outcome {
    let pod = machine.run_pod(machine.pod("log")).await?;
    let script = "echo out; echo err >&2; while ! test -e /tmp/go; do sleep 0.01; done; echo later; echo -n end";
    let id = machine.run(&pod, sh("log", script)).await?;
    let log = machine.logs().join("log.log");
    crate::machine::eventually("two lines are logged", || async { machine.output("log").lines().count() == 2 }).await?;
    let text = std::fs::read_to_string(&log)?;
    for (line, end) in text.lines().zip([" stdout F out", " stderr F err"]) {
        assert!(line.ends_with(end), "{line}");
        assert_eq!(line.as_bytes()[10], b'T', "{line}");
    }
    let rotated = machine.logs().join("log.log.1");
    std::fs::rename(&log, &rotated)?;
    machine.runtime().reopen_container_log(v1::ReopenContainerLogRequest { container_id: id.clone() }).await?;
    let exec =
        v1::ExecSyncRequest { container_id: id.clone(), cmd: vec!["touch".into(), "/tmp/go".into()], timeout: 10 };
    assert_eq!(machine.runtime().exec_sync(exec).await?.exit_code, 0);
    machine.wait(&id).await?;
    let text = std::fs::read_to_string(&log)?;
    assert!(text.contains(" stdout F later\n") && text.ends_with(" stdout P end\n"), "{text}");
    assert_eq!(std::fs::read_to_string(&rotated)?.lines().count(), 2);
    Ok(())
}

pub(crate) async fn a_command_that_is_missing_fails_the_start(machine: &Machine) -> Outcome {
    let pod = machine.run_pod(machine.pod("bad")).await?;
    for (command, text) in [
        ("no-such-command", "exec: \"no-such-command\": executable file not found in $PATH"),
        ("/no/such/file", "exec: \"/no/such/file\": stat /no/such/file: no such file or directory"),
        ("/etc/passwd", "exec: \"/etc/passwd\": permission denied"),
    ] {
        let mut config = sh("bad", "");
        config.metadata.as_mut().unwrap().name = command.replace('/', "-");
        config.command = vec![command.into()];
        let id = machine.create(&pod, config).await?;
        let error = machine.start_container(&id).await.unwrap_err();
        assert!(error.message().ends_with(text), "{}", error.message());
        let status = machine.status(&id).await?;
        assert_eq!((status.exit_code, status.reason.as_str()), (128, "StartError"));
        assert_eq!(status.state, v1::ContainerState::ContainerExited as i32);
    }
    let mut config = sh("user", "true");
    crate::machine::security(&mut config).run_as_username = "nobody-here".into();
    let id = machine.create(&pod, config).await?;
    let error = machine.start_container(&id).await.unwrap_err();
    assert!(error.message().contains("unable to find user nobody-here"), "{}", error.message());
    Ok(())
}

pub(crate) async fn everything_is_idempotent_and_absent_things_are_not_found(machine: &Machine) -> Outcome {
    let runtime = machine.runtime();
    let absent = "0123".to_owned();
    let code = |result: Result<(), tonic::Status>| result.unwrap_err().code();
    runtime.stop_pod_sandbox(v1::StopPodSandboxRequest { pod_sandbox_id: absent.clone() }).await?;
    runtime.remove_pod_sandbox(v1::RemovePodSandboxRequest { pod_sandbox_id: absent.clone() }).await?;
    runtime.stop_container(v1::StopContainerRequest { container_id: absent.clone(), timeout: 0 }).await?;
    runtime.remove_container(v1::RemoveContainerRequest { container_id: absent.clone() }).await?;
    let request = v1::PodSandboxStatusRequest { pod_sandbox_id: absent.clone(), verbose: false };
    assert_eq!(code(runtime.pod_sandbox_status(request).await.map(drop)), Code::NotFound);
    assert_eq!(code(machine.status(&absent).await.map(drop)), Code::NotFound);
    assert_eq!(code(machine.start_container(&absent).await), Code::NotFound);
    assert_eq!(code(machine.create(&absent, sh("x", "true")).await.map(drop)), Code::NotFound);

    let pod = machine.run_pod(machine.pod("twice")).await?;
    assert_eq!(code(machine.run_pod(machine.pod("twice")).await.map(drop)), Code::AlreadyExists);
    let mut config = sh("x", "true");
    config.image.as_mut().unwrap().image = "no/such:image".into();
    assert_eq!(code(machine.create(&pod, config).await.map(drop)), Code::NotFound);
    let handler = v1::RunPodSandboxRequest { config: Some(machine.pod("gvisor")), runtime_handler: "gvisor".into() };
    assert_eq!(code(runtime.run_pod_sandbox(handler).await.map(drop)), Code::InvalidArgument);

    let id = machine.run(&pod, sh("x", "sleep 1000")).await?;
    assert_eq!(machine.status(&id[..10]).await?.id, id);
    for _ in 0..2 {
        runtime.stop_container(v1::StopContainerRequest { container_id: id.clone(), timeout: 0 }).await?;
    }
    assert_eq!(machine.status(&id).await?.exit_code, 137);
    for _ in 0..2 {
        runtime.remove_container(v1::RemoveContainerRequest { container_id: id.clone() }).await?;
        runtime.stop_pod_sandbox(v1::StopPodSandboxRequest { pod_sandbox_id: pod.clone() }).await?;
    }
    let filter = v1::PodSandboxFilter {
        state: Some(v1::PodSandboxStateValue { state: v1::PodSandboxState::SandboxNotready as i32 }),
        label_selector: [("app".to_owned(), "twice".to_owned())].into(),
        ..v1::PodSandboxFilter::default()
    };
    let list = runtime.list_pod_sandbox(v1::ListPodSandboxRequest { filter: Some(filter) }).await?;
    assert_eq!(list.items.len(), 1);
    for _ in 0..2 {
        runtime.remove_pod_sandbox(v1::RemovePodSandboxRequest { pod_sandbox_id: pod.clone() }).await?;
    }
    Ok(())
}

pub(crate) async fn environment_user_and_working_directory_come_from_pod_and_image(machine: &Machine) -> Outcome {
    let change = |config: &mut v1::ContainerConfig| {
        config.envs = vec![v1::KeyValue { key: "BOTH".into(), value: "pod".into() }];
        config.working_dir = "/made/for/me".into();
        let security = crate::machine::security(config);
        security.run_as_username = "web".into();
        security.supplemental_groups = vec![4_711];
    };
    let script = "echo $FROM_IMAGE $BOTH $HOSTNAME $HOME; id -u; id -G; pwd; hostname; cat /etc/hostname; echo $PATH";
    let (code, output) = machine.script("env", change, script).await?;
    assert_eq!(code, 0);
    let expected = "yes pod env /home/web\n1000\n1000 33 4711\n/made/for/me\nenv\nenv\n\
                    /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n";
    assert_eq!(output, expected);
    Ok(())
}

pub(crate) async fn a_stop_signal_is_sent_before_the_kill(machine: &Machine) -> Outcome {
    let pod = machine.run_pod(machine.pod("stop")).await?;
    let mut config = sh("stop", "trap 'echo bye; exit 3' USR1; echo up; while :; do sleep 0.02; done");
    config.stop_signal = v1::Signal::Sigusr1 as i32;
    let id = machine.run(&pod, config).await?;
    crate::machine::eventually("the trap is set", || async { machine.output("stop").contains("up") }).await?;
    let request = v1::StopContainerRequest { container_id: id.clone(), timeout: 20 };
    machine.runtime().stop_container(request).await?;
    assert_eq!(machine.status(&id).await?.exit_code, 3);
    assert_eq!(machine.output("stop"), "up\nbye\n");
    Ok(())
}

pub(crate) async fn mounts_show_the_host_with_the_access_asked_for(machine: &Machine) -> Outcome {
    let shared = machine.dir.path().join("shared");
    std::fs::create_dir_all(&shared)?;
    std::fs::write(shared.join("file"), "from the host\n")?;
    let mount = |target: &str, readonly| v1::Mount {
        container_path: target.into(),
        host_path: shared.display().to_string(),
        readonly,
        ..v1::Mount::default()
    };
    let file = v1::Mount {
        container_path: "/etc/resolv.conf".into(),
        host_path: shared.join("file").display().to_string(),
        ..v1::Mount::default()
    };
    let missing = machine.dir.path().join("made/by/runtime");
    let made =
        v1::Mount { container_path: "/made".into(), host_path: missing.display().to_string(), ..v1::Mount::default() };
    let change = |config: &mut v1::ContainerConfig| {
        config.mounts = vec![mount("/a/inner", true), mount("/a", false), file, made];
    };
    let script = "cat /a/file /etc/resolv.conf; echo written > /a/new && touch /a/inner/x; ls -d /made; \
                  touch /proc/sys/kernel/hostname; cat /proc/keys | wc -c; ls /sys/firmware | wc -l; readlink /dev/stdin";
    let (_, output) = machine.script("mounts", change, script).await?;
    assert!(output.starts_with("from the host\nfrom the host\n"), "{output}");
    assert!(output.contains("touch: /a/inner/x: Read-only file system"), "{output}");
    assert!(output.ends_with("/made\n0\n0\n/proc/self/fd/0\n") || output.contains("/made\n"), "{output}");
    assert_eq!(std::fs::read_to_string(shared.join("new"))?, "written\n");
    assert!(missing.is_dir());

    let pod = machine.run_pod(machine.pod("proc")).await?;
    let mut config = sh("proc", "true");
    config.mounts = vec![v1::Mount {
        container_path: "/proc/sys".into(),
        host_path: shared.display().to_string(),
        ..v1::Mount::default()
    }];
    let id = machine.create(&pod, config).await?;
    let error = machine.start_container(&id).await.unwrap_err();
    assert!(error.message().contains("inside /proc"), "{}", error.message());
    Ok(())
}

pub(crate) async fn containers_of_a_pod_share_its_network_and_processes(machine: &Machine) -> Outcome {
    let mut config = machine.pod("share");
    let options = config.linux.as_mut().unwrap().security_context.as_mut().unwrap().namespace_options.as_mut().unwrap();
    options.pid = v1::NamespaceMode::Pod as i32;
    let pod = machine.run_pod(config).await?;
    let shared = |name: &str, script: &str| {
        let mut config = sh(name, script);
        crate::machine::security(&mut config).namespace_options.as_mut().unwrap().pid = v1::NamespaceMode::Pod as i32;
        config
    };
    let first =
        machine.run(&pod, shared("first", "echo x > /dev/shm/x; nc -l -p 80 -e /bin/echo served; sleep 1000")).await?;
    let script = "while ! nc 127.0.0.1 80; do sleep 0.01; done; cat /dev/shm/x; ps -o pid,args; \
                  ls /proc/1/root/ 2>&1 | head -1";
    let second = machine.run(&pod, shared("second", script)).await?;
    machine.wait(&second).await?;
    let output = machine.output("second");
    assert!(output.contains("served\nx\n"), "{output}");
    assert!(output.contains("1 /pause"), "{output}");
    assert!(output.contains("sleep 1000"), "{output}");
    assert!(output.contains("Permission denied"), "{output}");
    machine.runtime().stop_container(v1::StopContainerRequest { container_id: first, timeout: 0 }).await?;
    Ok(())
}

pub(crate) async fn events_tell_what_happens(machine: &Machine) -> Outcome {
    let mut events = machine.runtime().get_container_events(v1::GetEventsRequest {}).await?;
    let pod = machine.run_pod(machine.pod("events")).await?;
    let id = machine.run(&pod, sh("events", "true")).await?;
    let mut seen = Vec::new();
    while seen.len() < 5 {
        let event = tokio::time::timeout(PATIENCE, events.next()).await?.unwrap()?;
        let who = if event.container_id == pod { "pod" } else { "container" };
        assert_eq!(event.pod_sandbox_status.clone().unwrap().id, pod);
        seen.push((who, event.container_event_type()));
    }
    use v1::ContainerEventType as Kind;
    assert_eq!(
        seen,
        [
            ("pod", Kind::ContainerCreatedEvent),
            ("pod", Kind::ContainerStartedEvent),
            ("container", Kind::ContainerCreatedEvent),
            ("container", Kind::ContainerStartedEvent),
            ("container", Kind::ContainerStoppedEvent),
        ]
    );
    machine.wait(&id).await?;
    assert!(Path::new("/proc").exists() && !IMAGE.is_empty());
    Ok(())
}
