//! One exec or attach, whatever carries it: input events in, output events out.

use bytes::Bytes;
use serde_json::{Value, json};
use skiff_runtime::streaming::{Reader, Session, TerminalSize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

/// Events that may wait in either direction.
pub(super) const BUFFER: usize = 32;
/// Bytes sent in one message.
const CHUNK: usize = 32 << 10;

/// What the client does.
#[derive(Debug)]
pub(super) enum Input {
    Stdin(Bytes),
    /// It sends no more; the process sees the end of its input.
    StdinClosed,
    Resize(TerminalSize),
}

/// What the client is told.
#[derive(Debug)]
pub(super) enum Output {
    Stdout(Bytes),
    Stderr(Bytes),
    /// How it ended; nothing follows.
    Ended(Value),
}

/// Runs the session until the process ends or the client leaves (its channel closes).
pub(super) async fn run(session: Session, mut input: mpsc::Receiver<Input>, output: mpsc::Sender<Output>) {
    let Session { mut stdin, stdout, stderr, resize, exit } = session;
    let gone = async {
        while let Some(event) = input.recv().await {
            match event {
                Input::Stdin(data) => {
                    if let Some(writer) = &mut stdin
                        && (writer.write_all(&data).await.is_err() || writer.flush().await.is_err())
                    {
                        stdin = None;
                    }
                }
                Input::StdinClosed => {
                    if let Some(mut writer) = stdin.take() {
                        drop(writer.shutdown().await);
                    }
                }
                // A process slower than the user's window gets one of the later sizes.
                Input::Resize(size) => drop(resize.try_send(size)),
            }
        }
    };
    let copied = async {
        let out = copy(stdout, &output, Output::Stdout);
        let err = copy(stderr, &output, Output::Stderr);
        tokio::join!(out, err);
    };
    let ended = async {
        // What was written before the end is sent before the end.
        let (code, ()) = tokio::join!(exit, copied);
        let status = match code {
            Ok(0) => json!({"metadata": {}, "status": "Success"}),
            Ok(code) => exit_status(code),
            Err(status) => failure(status.message()),
        };
        drop(output.send(Output::Ended(status)).await);
    };
    tokio::select! {
        biased;
        () = ended => {}
        () = gone => {}
    }
}

async fn copy(reader: Option<Reader>, output: &mpsc::Sender<Output>, wrap: fn(Bytes) -> Output) {
    let Some(mut reader) = reader else { return };
    let mut buffer = vec![0; CHUNK];
    loop {
        match reader.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(read) => {
                if output.send(wrap(Bytes::copy_from_slice(&buffer[..read]))).await.is_err() {
                    return;
                }
            }
        }
    }
}

fn exit_status(code: i32) -> Value {
    json!({
        "metadata": {},
        "status": "Failure",
        "message": format!("command terminated with non-zero exit code: exit status {code}"),
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
    })
}

/// The status of something that could not be done.
pub(super) fn failure(message: &str) -> Value {
    json!({"metadata": {}, "status": "Failure", "message": message, "reason": "InternalError", "code": 500})
}

/// Reads the terminal size a client sends.
pub(super) fn terminal_size(data: &[u8]) -> Option<TerminalSize> {
    let value: Value = serde_json::from_slice(data).ok()?;
    let part = |upper: &str, lower: &str| {
        value.get(upper).or_else(|| value.get(lower))?.as_u64().and_then(|part| u16::try_from(part).ok())
    };
    Some(TerminalSize { width: part("Width", "width")?, height: part("Height", "height")? })
}
