//! What the inference server costs above ONNX Runtime itself: `make bench ONLY=server`, `perf-analyzer`, `soak`.
//!
//! The reference is ONNX Runtime alone, in a process of its own, before and after every two points: figures are ratios
//! to it, or what lies above it. The load client shares the cores with the server; its own cost is on stderr.

#[path = "../report.rs"]
mod report;

mod connection;
mod figures;
mod http2;
mod load;
mod mixed;
mod model;
mod perf_analyzer;
mod process;
mod raw;
mod soak;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    match arguments.split_first() {
        Some((command, rest)) if command == "raw" => raw::child(rest),
        Some((command, _)) if command == "perf-analyzer" => perf_analyzer::run(),
        Some((command, _)) if command == "soak" => soak::run(),
        _ => figures::run(),
    }
}
