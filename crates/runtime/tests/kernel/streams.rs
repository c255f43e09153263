//! exec, attach, port-forward.

use std::time::Duration;

use skiff_runtime::cri as v1;
use skiff_runtime::streaming::{Session, TerminalSize};
use skiff_runtime::{RuntimeService, Streaming};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::Outcome;
use crate::machine::{Machine, PATIENCE, eventually, sh};

fn exec(id: &str, command: &[&str]) -> v1::ExecRequest {
    v1::ExecRequest {
        container_id: id.into(),
        cmd: command.iter().map(ToString::to_string).collect(),
        tty: false,
        stdin: true,
        stdout: true,
        stderr: true,
    }
}

async fn idle(machine: &Machine, name: &str) -> Result<String, tonic::Status> {
    let pod = machine.run_pod(machine.pod(name)).await?;
    machine.run(&pod, sh(name, "sleep 1000")).await
}

pub(crate) async fn exec_gives_streams_and_exit_codes(machine: &Machine) -> Outcome {
    let id = idle(machine, "exec").await?;
    let session = machine.runtime().as_streaming().exec(exec(&id, &["sh", "-c", "cat; echo err >&2; exit 9"])).await?;
    let Session { stdin, stdout, stderr, exit, .. } = session;
    let (mut stdin, mut stdout, mut stderr) = (stdin.unwrap(), stdout.unwrap(), stderr.unwrap());
    let text = "x".repeat(300_000);
    let send = async {
        stdin.write_all(text.as_bytes()).await.unwrap();
        stdin.shutdown().await.unwrap();
    };
    let (mut out, mut err) = (String::new(), String::new());
    let (_, read_out, read_err) = tokio::join!(send, stdout.read_to_string(&mut out), stderr.read_to_string(&mut err));
    read_out?;
    read_err?;
    assert_eq!((out.len(), err.as_str()), (text.len(), "err\n"));
    assert_eq!(exit.await?, 9);

    let missing = machine.runtime().as_streaming().exec(exec(&id, &["no-such"])).await?;
    let error = missing.exit.await.unwrap_err();
    assert!(error.message().contains("executable file not found in $PATH"), "{}", error.message());

    let sync = |script: &str| v1::ExecSyncRequest {
        container_id: id.clone(),
        cmd: vec!["sh".into(), "-c".into(), script.into()],
        timeout: 10,
    };
    let answer = machine.runtime().exec_sync(sync("grep CapEff /proc/self/status; kill -9 $$")).await?;
    assert_eq!(String::from_utf8(answer.stdout)?, "CapEff:\t00000000a80425fb\n");
    assert_eq!(answer.exit_code, 137);
    let answer = machine.runtime().exec_sync(sync("ps -o pid,args | grep -v ps; cat /proc/self/cgroup")).await?;
    let text = String::from_utf8(answer.stdout)?;
    assert!(text.contains("1 sleep 1000") || text.contains("1 /bin/sh"), "{text}");
    Ok(())
}

pub(crate) async fn exec_with_a_terminal_resizes(machine: &Machine) -> Outcome {
    let id = idle(machine, "tty").await?;
    let mut request = exec(&id, &["sh", "-c", "tty; read x; stty size; exit 4"]);
    request.tty = true;
    let Session { stdin, stdout, stderr, resize, exit } = machine.runtime().as_streaming().exec(request).await?;
    assert!(stderr.is_none());
    let (mut stdin, mut stdout) = (stdin.unwrap(), stdout.unwrap());
    let mut seen = String::new();
    let mut buffer = [0; 256];
    while !seen.contains("/dev/pts/0") {
        let count = tokio::time::timeout(PATIENCE, stdout.read(&mut buffer)).await??;
        seen.push_str(std::str::from_utf8(&buffer[..count])?);
    }
    resize.send(TerminalSize { width: 123, height: 45 }).await?;
    // The size is applied by another task before the line is read by the process.
    tokio::task::yield_now().await;
    eventually("the resize is taken", || async { resize.capacity() == resize.max_capacity() }).await?;
    stdin.write_all(b"\n").await?;
    stdout.read_to_string(&mut seen).await?;
    assert!(seen.contains("45 123"), "{seen:?}");
    assert_eq!(exit.await?, 4);
    Ok(())
}

pub(crate) async fn exec_sync_times_out_and_kills(machine: &Machine) -> Outcome {
    let id = idle(machine, "timeout").await?;
    let request = v1::ExecSyncRequest {
        container_id: id.clone(),
        cmd: vec!["sh".into(), "-c".into(), "sleep 4711".into()],
        timeout: 1,
    };
    let error = machine.runtime().exec_sync(request).await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::DeadlineExceeded);
    let ps = v1::ExecSyncRequest { container_id: id, cmd: vec!["ps".into()], timeout: 10 };
    eventually("the command is gone", || async {
        let answer = machine.runtime().exec_sync(ps.clone()).await.unwrap();
        !String::from_utf8(answer.stdout).unwrap().contains("4711")
    })
    .await
}

pub(crate) async fn attach_reads_and_writes(machine: &Machine) -> Outcome {
    let pod = machine.run_pod(machine.pod("attach")).await?;
    let mut config = sh("attach", "cat; echo bye >&2; exit 5");
    (config.stdin, config.stdin_once) = (true, true);
    let id = machine.run(&pod, config).await?;
    let request = v1::AttachRequest {
        container_id: id.clone(),
        stdin: true,
        stdout: true,
        stderr: true,
        ..v1::AttachRequest::default()
    };
    let Session { stdin, stdout, stderr, exit, .. } = machine.runtime().as_streaming().attach(request).await?;
    let (mut stdin, mut stdout, mut stderr) = (stdin.unwrap(), stdout.unwrap(), stderr.unwrap());
    let text = "line of text\n".repeat(50_000);
    let send = async {
        stdin.write_all(text.as_bytes()).await.unwrap();
        stdin.shutdown().await.unwrap();
        drop(stdin);
    };
    let (mut out, mut err) = (String::new(), String::new());
    let all = async { tokio::join!(send, stdout.read_to_string(&mut out), stderr.read_to_string(&mut err)) };
    let (_, read_out, read_err) = tokio::time::timeout(PATIENCE, all).await?;
    read_out?;
    read_err?;
    assert_eq!((out.len(), err.as_str()), (text.len(), "bye\n"));
    assert_eq!(exit.await?, 5);
    assert_eq!(machine.output("attach").lines().count(), 50_001);
    Ok(())
}

pub(crate) async fn the_first_client_misses_nothing(machine: &Machine) -> Outcome {
    let pod = machine.run_pod(machine.pod("first")).await?;
    let mut config = sh("first", "echo early; echo warning >&2; cat");
    (config.stdin, config.stdin_once) = (true, true);
    let id = machine.run(&pod, config).await?;
    eventually("it has written", || async { machine.output("first").contains("warning") }).await?;
    let request =
        v1::AttachRequest { container_id: id, stdin: true, stdout: true, stderr: true, ..v1::AttachRequest::default() };
    let session = machine.runtime().as_streaming().attach(request.clone()).await?;
    let second = machine.runtime().as_streaming().attach(v1::AttachRequest { stdin: false, ..request }).await?;
    session.stdin.unwrap().shutdown().await?;
    let mut read = Vec::new();
    for stream in [session.stdout, session.stderr, second.stdout] {
        let mut text = String::new();
        tokio::time::timeout(PATIENCE, stream.unwrap().read_to_string(&mut text)).await??;
        read.push(text);
    }
    assert_eq!(read, ["early\n", "warning\n", ""]);
    Ok(())
}

pub(crate) async fn attach_to_a_terminal(machine: &Machine) -> Outcome {
    let pod = machine.run_pod(machine.pod("terminal")).await?;
    let mut config = sh("terminal", "tty; read line; echo got $line; stty size; test -c /dev/console && echo console");
    (config.stdin, config.tty) = (true, true);
    let id = machine.run(&pod, config).await?;
    let request = v1::AttachRequest {
        container_id: id.clone(),
        stdin: true,
        tty: true,
        stdout: true,
        ..v1::AttachRequest::default()
    };
    let Session { stdin, stdout, resize, exit, .. } = machine.runtime().as_streaming().attach(request).await?;
    resize.send(TerminalSize { width: 80, height: 25 }).await?;
    eventually("the resize is taken", || async { resize.capacity() == resize.max_capacity() }).await?;
    tokio::time::sleep(Duration::from_millis(20)).await;
    stdin.unwrap().write_all(b"words\n").await?;
    let mut out = String::new();
    tokio::time::timeout(PATIENCE, stdout.unwrap().read_to_string(&mut out)).await??;
    assert!(out.contains("got words\r\n25 80\r\nconsole\r\n"), "{out:?}");
    assert_eq!(exit.await?, 0);
    assert!(machine.output("terminal").contains("got words"), "{}", machine.output("terminal"));
    Ok(())
}

pub(crate) async fn port_forward_reaches_loopback(machine: &Machine) -> Outcome {
    let pod = machine.run_pod(machine.pod("port")).await?;
    let _ = machine.run(&pod, sh("port", "nc -l -p 8080 -e cat; sleep 1000")).await?;
    let mut connection = None;
    for _ in 0..1_000 {
        match machine.runtime().as_streaming().port_forward(&pod, 8080).await {
            Ok(open) => {
                connection = Some(open);
                break;
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
    let mut connection = connection.ok_or("nobody listens")?;
    connection.writer.write_all(b"echo\n").await?;
    connection.writer.shutdown().await?;
    let mut text = String::new();
    tokio::time::timeout(PATIENCE, connection.reader.read_to_string(&mut text)).await??;
    assert_eq!(text, "echo\n");
    let refused = machine.runtime().as_streaming().port_forward(&pod, 9).await;
    assert!(refused.is_err_and(|error| error.message().contains("localhost:9 inside sandbox")));
    Ok(())
}

/// `RuntimeService` has calls of the same names.
trait AsStreaming {
    fn as_streaming(&self) -> &dyn Streaming;
}

impl AsStreaming for skiff_runtime::Runtime {
    fn as_streaming(&self) -> &dyn Streaming {
        self
    }
}
