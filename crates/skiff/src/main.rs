//! Skiff: Kubernetes in one small binary. This crate is the command line and the wiring.
//!
//! Reading order: [`cli`] (what the command line accepts), [`commands`] (what it does), `server`
//! (how the parts become a cluster).

#![allow(unreachable_pub)] // a binary has no outside: `pub` here says what a module offers

mod bench;
mod cli;
mod commands;
mod components;
mod connect;
mod control;
mod demo;
mod deploy;
mod files;
mod kubeconfig;
mod pki;
mod profile;
mod progress;
mod server;
mod signer;

use clap::Parser;

fn main() -> std::process::ExitCode {
    // Shims and helpers of containers are this binary too: nothing may run before this.
    if let Some(code) = skiff_runtime::shim::dispatch(std::env::args_os()) {
        return code;
    }
    let cli = cli::Cli::parse();
    match commands::run(cli) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}
