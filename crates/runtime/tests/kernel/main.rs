//! Real sandboxes and containers on this kernel, as root, below a temporary directory.
//!
//! Every test ends by removing its pods and checking that nothing is left: no mount, no control
//! group, no process, no file. The containers run busybox (Debian's `busybox-static`).

mod basics;
mod limits;
mod machine;
mod streams;
mod survival;

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
        limits::a_container_is_confined,
        limits::seccomp_denies_what_the_default_profile_denies,
        limits::capabilities_and_users_are_dropped,
        limits::memory_and_cpu_limits_are_set_and_an_oom_kill_is_told,
        limits::a_read_only_root_is_read_only,
        limits::a_privileged_container_is_not_confined,
        limits::statistics_are_read,
        streams::exec_gives_streams_and_exit_codes,
        streams::exec_with_a_terminal_resizes,
        streams::exec_sync_times_out_and_kills,
        streams::attach_reads_and_writes,
        streams::the_first_client_misses_nothing,
        streams::attach_to_a_terminal,
        streams::port_forward_reaches_loopback,
        survival::a_killed_shim_is_replaced,
        survival::a_restarted_server_finds_everything_as_it_was,
        survival::an_exit_while_nobody_watched_is_known,
        survival::a_socket_serves_the_same_calls,
        survival::figures,
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
