//! Kills and restarts; the socket; figures.

use std::sync::Arc;
use std::time::Instant;

use skiff_runtime::cri as v1;
use skiff_runtime::{ImageService, RuntimeService};

use crate::Outcome;
use crate::machine::{IMAGE, Machine, eventually, sh};

const COUNTER: &str = "i=0; while ! test -e /tmp/stop; do echo $i; i=$((i+1)); sleep 0.01; done; exit 6";

fn shims(machine: &Machine) -> Vec<i32> {
    let dir = machine.dir.path().display().to_string();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let command = std::fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
        if command.starts_with("skiff-shim") && command.contains(&dir) {
            found.extend(entry.file_name().to_string_lossy().parse::<i32>());
        }
    }
    found
}

fn kill(pid: i32) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
}

async fn stop_by_file(machine: &Machine, id: &str) -> Outcome {
    let request =
        v1::ExecSyncRequest { container_id: id.into(), cmd: vec!["touch".into(), "/tmp/stop".into()], timeout: 10 };
    assert_eq!(machine.runtime().exec_sync(request).await?.exit_code, 0);
    Ok(())
}

pub(crate) async fn a_killed_shim_is_replaced(machine: &Machine) -> Outcome {
    let pod = machine.run_pod(machine.pod("shim")).await?;
    let id = machine.run(&pod, sh("shim", COUNTER)).await?;
    eventually("it counts", || async { machine.output("shim").lines().count() > 3 }).await?;
    let pid = machine.pid(&id).await;
    let before = shims(machine);
    assert_eq!(before.len(), 1);
    kill(before[0]);
    eventually("another shim is there", || async {
        let now = shims(machine);
        now.len() == 1 && now != before
    })
    .await?;
    let lines = machine.output("shim").lines().count();
    eventually("it goes on counting", || async { machine.output("shim").lines().count() > lines + 3 }).await?;
    assert_eq!(machine.pid(&id).await, pid);
    stop_by_file(machine, &id).await?;
    let status = machine.wait(&id).await?;
    assert_eq!(status.exit_code, 6, "{}", status.reason);
    let numbers: Vec<u32> = machine.output("shim").lines().map(|line| line.parse().unwrap()).collect();
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "lines were lost: {numbers:?}");
    Ok(())
}

pub(crate) async fn a_restarted_server_finds_everything_as_it_was(machine: &Machine) -> Outcome {
    let pod = machine.run_pod(machine.pod("again")).await?;
    let running = machine.run(&pod, sh("running", COUNTER)).await?;
    let created = machine.create(&pod, sh("created", "exit 2")).await?;
    let exited = machine.run(&pod, sh("exited", "exit 3")).await?;
    machine.wait(&exited).await?;
    let pid = machine.pid(&running).await;
    let list = |runtime: skiff_runtime::Runtime| async move {
        let containers = runtime.list_containers(v1::ListContainersRequest::default()).await.unwrap().containers;
        let pods = runtime.list_pod_sandbox(v1::ListPodSandboxRequest::default()).await.unwrap().items;
        let images = runtime.images().list_images(v1::ListImagesRequest::default()).await.unwrap().images;
        (containers, pods, images)
    };
    let before = list(machine.runtime()).await;
    let status = machine.status(&running).await?;
    machine.kill_server().await;
    machine.start().await?;
    assert_eq!(list(machine.runtime()).await, before);
    assert_eq!(machine.status(&running).await?, status);
    assert_eq!(machine.pid(&running).await, pid);

    // The same without shims in between.
    machine.kill_server().await;
    shims(machine).into_iter().for_each(kill);
    eventually("no shim", || async { shims(machine).is_empty() }).await?;
    machine.start().await?;
    assert_eq!(list(machine.runtime()).await, before);
    assert_eq!(machine.pid(&running).await, pid);
    stop_by_file(machine, &running).await?;
    assert_eq!(machine.wait(&running).await?.exit_code, 6);
    machine.start_container(&created).await?;
    assert_eq!(machine.wait(&created).await?.exit_code, 2);
    Ok(())
}

pub(crate) async fn an_exit_while_nobody_watched_is_known(machine: &Machine) -> Outcome {
    let pod = machine.run_pod(machine.pod("unseen")).await?;
    let first = machine.run(&pod, sh("first", "while ! test -e /tmp/stop; do sleep 0.01; done; exit 4")).await?;
    let second = machine.run(&pod, sh("second", "sleep 1000")).await?;
    let (first_pid, second_pid) = (machine.pid(&first).await, machine.pid(&second).await);
    machine.kill_server().await;
    std::fs::write(format!("/proc/{first_pid}/root/tmp/stop"), "")?;
    let gone = |pid: i32| !std::path::Path::new(&format!("/proc/{pid}")).exists();
    eventually("the first has ended", || async { gone(first_pid) }).await?;
    shims(machine).into_iter().for_each(kill);
    eventually("no shim", || async { shims(machine).is_empty() }).await?;
    kill(second_pid);
    eventually("the second has ended", || async { gone(second_pid) }).await?;
    machine.start().await?;
    assert_eq!(machine.wait(&first).await?.exit_code, 4);
    let status = machine.wait(&second).await?;
    // Known while the zombie is there, else not: nobody watched.
    assert!(matches!((status.exit_code, status.reason.as_str()), (255, "Unknown") | (137, "Error")), "{status:?}");
    Ok(())
}

pub(crate) async fn a_socket_serves_the_same_calls(machine: &Machine) -> Outcome {
    let socket = machine.dir.path().join("cri.sock");
    let shutdown = skiff_base::Shutdown::new();
    let runtime = machine.runtime();
    let images: Arc<dyn ImageService> = Arc::new(runtime.images().clone());
    let serving = skiff_runtime::cri::serve(&socket, Arc::new(runtime.clone()), images, shutdown.clone());
    let calls = async {
        eventually("the socket is there", || async { socket.exists() }).await?;
        let remote = skiff_runtime::cri::Remote::new(&socket);
        let version = remote.version(v1::VersionRequest::default()).await?;
        assert_eq!(version.runtime_name, "skiff");
        assert!(
            remote.status(v1::StatusRequest::default()).await?.status.unwrap().conditions.iter().all(|one| one.status)
        );
        let request = v1::RunPodSandboxRequest { config: Some(machine.pod("socket")), runtime_handler: String::new() };
        let pod = remote.run_pod_sandbox(request).await?.pod_sandbox_id;
        let found = remote.list_pod_sandbox(v1::ListPodSandboxRequest::default()).await?.items;
        assert_eq!(found[0].id, pod);
        assert_eq!(remote.list_images(v1::ListImagesRequest::default()).await?.images[0].repo_tags, [IMAGE]);
        let absent = v1::ContainerStatusRequest { container_id: "none".into(), verbose: false };
        assert_eq!(remote.container_status(absent).await.unwrap_err().code(), tonic::Code::NotFound);
        shutdown.signal();
        Ok::<_, Box<dyn std::error::Error>>(())
    };
    let (served, called) = tokio::join!(serving, calls);
    called?;
    served?;
    assert!(!socket.exists());
    Ok(())
}

pub(crate) async fn figures(machine: &Machine) -> Outcome {
    const ROUNDS: usize = 40;
    let (mut pods, mut creates, mut starts, mut ends) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let name = format!("f{round}");
        #[allow(clippy::disallowed_methods)] // this is a measurement
        let start = Instant::now();
        let pod = machine.run_pod(machine.pod(&name)).await?;
        pods.push(start.elapsed());
        let id = machine.create(&pod, sh(&name, "sleep 1000")).await?;
        creates.push(start.elapsed() - pods[round]);
        machine.start_container(&id).await?;
        starts.push(start.elapsed() - pods[round] - creates[round]);
        if round == ROUNDS - 1 {
            // A shim tidies up after a second without events.
            tokio::time::sleep(std::time::Duration::from_millis(1_500)).await;
            memory(machine);
        }
        #[allow(clippy::disallowed_methods)]
        let stop = Instant::now();
        let runtime = machine.runtime();
        runtime.stop_pod_sandbox(v1::StopPodSandboxRequest { pod_sandbox_id: pod.clone() }).await?;
        runtime.remove_pod_sandbox(v1::RemovePodSandboxRequest { pod_sandbox_id: pod }).await?;
        ends.push(stop.elapsed());
    }
    for (what, mut times) in [
        ("RunPodSandbox", pods),
        ("CreateContainer", creates),
        ("StartContainer", starts),
        ("stop and remove pod", ends),
    ] {
        times.sort();
        let ms = |at: usize| times[at].as_secs_f64() * 1_000.0;
        println!("     {what}: p50 {:.1} ms, p90 {:.1} ms ({ROUNDS} rounds)", ms(ROUNDS / 2), ms(ROUNDS * 9 / 10));
    }
    Ok(())
}

/// Proportional set size of a shim and its pause process.
fn memory(machine: &Machine) {
    let pss = |pid: i32| -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap_or_default();
        line.trim().trim_end_matches(" kB").parse().unwrap_or(0)
    };
    for shim in shims(machine) {
        let children = std::fs::read_to_string(format!("/proc/{shim}/task/{shim}/children")).unwrap_or_default();
        let pause = children
            .split(' ')
            .filter_map(|pid| pid.parse::<i32>().ok())
            .find(|pid| std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm == "pause\n"));
        let pause = pause.map_or(0, pss);
        println!("     shim {} KiB PSS, pause {pause} KiB PSS", pss(shim));
    }
}
