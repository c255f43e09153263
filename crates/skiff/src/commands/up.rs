//! `skiff up`: start the cluster in the background and wait until it can be used.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use skiff_base::Random;

use super::{Session, light_runtime, require_root};
use crate::profile::Profile;
use crate::progress::{Event, Printer, Step};
use crate::server::ExtraConfig;
use crate::{cli, control, files};

/// How much of the server's last words an error repeats.
const LAST_WORDS_BYTES: usize = 2_000;

pub fn run(session: &Session, options: &cli::Up) -> Result<()> {
    require_root("up")?;
    let extra_config = ExtraConfig::given(&options.extra_config)?;
    let mut profile = Profile::open_or_create(&session.roots, &session.profile, options.api_port, &Random::system())?;
    let printer = Printer::new(options.progress);
    let runtime = light_runtime()?;
    match runtime.block_on(control::Client::new(&profile.control_socket()).state())? {
        Some(state) if state.ready => {
            if extra_config.as_ref().is_some_and(|given| *given != profile.settings.extra_config) {
                bail!(
                    "cluster {} runs with other flags; stop it first with: skiff down -p {}",
                    profile.name,
                    profile.name
                );
            }
            if printer.is_for_people() {
                println!("cluster {} already runs (process {})", profile.name, state.pid);
            }
        }
        Some(state) => {
            bail!("cluster {} is just starting (process {}); watch it with: skiff logs -f", profile.name, state.pid)
        }
        None => {
            if let Some(given) = extra_config {
                profile.set_extra_config(given)?;
            }
            start(&profile, &printer, Duration::from_secs(options.timeout))?;
        }
    }
    if !options.no_kubeconfig {
        super::kubeconfig::put(session, &profile)?;
    }
    let url = if options.demo {
        Some(runtime.block_on(crate::deploy::demo(
            &profile,
            &printer,
            session,
            Duration::from_secs(options.timeout),
        ))?)
    } else {
        None
    };
    printer.show(&Event::Ready);
    if printer.is_for_people() {
        println!();
        if !options.no_kubeconfig {
            println!("kubectl now uses the context {}.", profile.context());
        }
        if let Some(url) = url {
            println!("The demo answers at {url}");
        }
    }
    Ok(())
}

/// Starts the server and shows its steps until it is ready.
pub fn start(profile: &Profile, printer: &Printer, timeout: Duration) -> Result<()> {
    launch(profile, &[], &|event| printer.show(event), timeout).map(drop)
}

/// Starts the server with further arguments and tells of its steps until it is ready.
pub fn launch(profile: &Profile, arguments: &[&str], show: &dyn Fn(&Event), timeout: Duration) -> Result<Child> {
    let mut server = spawn(profile, arguments)?;
    let output = server.stdout.take().context("read the server's progress")?;
    // A server that hangs is ended by this command, not waited for.
    let (sender, events) = std::sync::mpsc::sync_channel(64);
    let reader = std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    let outcome = follow(&events, show, timeout);
    if outcome.is_err() {
        let _ = server.kill();
        let _ = server.wait();
    }
    drop(events);
    if outcome.is_err() {
        let _ = reader.join();
    }
    if outcome.is_err()
        && let Some(words) = last_words(profile)
    {
        eprintln!("{words}");
    }
    outcome.with_context(|| format!("start cluster {}", profile.name)).map(|()| server)
}

fn follow(lines: &std::sync::mpsc::Receiver<String>, show: &dyn Fn(&Event), timeout: Duration) -> Result<()> {
    loop {
        let line = match lines.recv_timeout(timeout) {
            Ok(line) => line,
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {
                bail!(
                    "nothing happened for {} seconds; see: skiff logs, or wait longer with --timeout",
                    timeout.as_secs()
                )
            }
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => bail!("the server ended; see: skiff logs"),
        };
        let event: Event =
            serde_json::from_str(&line).with_context(|| format!("read the server's progress {line:?}"))?;
        match &event {
            Event::Ready => return Ok(()),
            Event::Failed { error } => {
                show(&event);
                bail!("{error}");
            }
            Event::Started { .. } | Event::Done { .. } => show(&event),
        }
    }
}

fn spawn(profile: &Profile, arguments: &[&str]) -> Result<Child> {
    files::create_private_dir(&profile.logs())?;
    files::create_private_dir(profile.run())?;
    let path = profile.logs().join("server.log");
    let log = File::create(&path).with_context(|| format!("open {}", path.display()))?;
    let binary = std::env::current_exe().context("find this binary")?;
    Command::new(&binary)
        .args(["--profile", &profile.name, "server", "--report"])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .current_dir("/")
        .process_group(0)
        .spawn()
        .with_context(|| format!("start {}", binary.display()))
}

fn last_words(profile: &Profile) -> Option<String> {
    let text = std::fs::read_to_string(profile.logs().join("server.log")).ok()?;
    let text = text.trim();
    let mut from = text.len().saturating_sub(LAST_WORDS_BYTES);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    (!text.is_empty()).then(|| text[from..].to_owned())
}

/// Reports the step `step` around `work`.
pub async fn step<T>(
    printer: &Printer,
    session: &Session,
    step: Step,
    work: impl Future<Output = Result<(T, Option<String>)>>,
) -> Result<T> {
    printer.show(&Event::Started { step });
    let began = session.clock.instant();
    match work.await {
        Ok((value, detail)) => {
            printer.show(&Event::Done { step, millis: began.elapsed().as_millis() as u64, detail });
            Ok(value)
        }
        Err(error) => {
            printer.show(&Event::Failed { error: format!("{error:#}") });
            Err(error)
        }
    }
}
