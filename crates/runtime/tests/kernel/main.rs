//! Real sandboxes and containers on this kernel, as root, below a temporary directory.
//!
//! Every test ends by removing its pods and checking that nothing is left: no mount, no control
//! group, no process, no file. The containers run busybox (Debian's `busybox-static`).

mod basics;
mod machine;

use std::panic::AssertUnwindSafe;
use std::process::ExitCode;
use std::time::Instant;

use futures::FutureExt;
use machine::Machine;

type Outcome = Result<(), Box<dyn std::error::Error>>;

macro_rules! tests {
    ($($module:ident::$name:ident),* $(,)?) => {
        [$((stringify!($module), stringify!($name), (|runtime: &tokio::runtime::Runtime| -> Outcome {
            runtime.block_on(async {
                let machine = Machine::new().await?;
                let outcome = AssertUnwindSafe($module::$name(&machine)).catch_unwind().await;
                let outcome = outcome.unwrap_or_else(|_| Err("panicked".into()));
                let clean = machine.finish().await;
                outcome.and(clean)
            })
        }) as Test)),*]
    };
}

type Test = fn(&tokio::runtime::Runtime) -> Outcome;

fn main() -> ExitCode {
    if let Some(code) = skiff_runtime::shim::dispatch(std::env::args_os()) {
        return code;
    }
    if !machine::is_root() || !std::path::Path::new(machine::BUSYBOX).exists() {
        println!("kernel tests need root and {} (apt-get install busybox-static): skipped", machine::BUSYBOX);
        return ExitCode::SUCCESS;
    }
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    let tests = tests![
        basics::a_container_runs_and_reports_its_exit_code,
        basics::logs_are_in_cri_format_and_can_be_rotated,
        basics::a_command_that_is_missing_fails_the_start,
        basics::everything_is_idempotent_and_absent_things_are_not_found,
        basics::environment_user_and_working_directory_come_from_pod_and_image,
        basics::a_stop_signal_is_sent_before_the_kill,
        basics::mounts_show_the_host_with_the_access_asked_for,
        basics::containers_of_a_pod_share_its_network_and_processes,
        basics::events_tell_what_happens,
    ];
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut failed = 0;
    for (module, name, test) in tests {
        if !format!("{module}::{name}").contains(&filter) {
            continue;
        }
        #[allow(clippy::disallowed_methods)] // measures the test itself
        let start = Instant::now();
        match test(&runtime) {
            Ok(()) => println!("ok   {module}::{name} ({} ms)", start.elapsed().as_millis()),
            Err(error) => {
                failed += 1;
                println!("FAIL {module}::{name}: {error}");
            }
        }
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
