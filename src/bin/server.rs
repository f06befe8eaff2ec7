//! The inference server: `modelwright-server --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    modelwright::server::cli::run()
}
