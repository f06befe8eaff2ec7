use std::process::ExitCode;

use clap::Parser;
use modelwright::loader::cli::{Cli, run};

fn main() -> ExitCode {
    modelwright::telemetry::init();
    // Fails only when a provider is there already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    run(Cli::parse())
}
