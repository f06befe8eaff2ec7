//! What a person sees who serves a file on a terminal.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::model::{Model, Server};
use crate::protocol::{Datatype, TensorSpec};

/// Writes to standard error, and only if that is a terminal: elsewhere logs say the same.
#[derive(Clone)]
pub struct Console {
    loading: Arc<AtomicBool>,
    port: u16,
}

/// Longer examples help nobody.
const EXAMPLE_ELEMENTS: i64 = 16;

impl Console {
    pub fn is_wanted() -> bool {
        std::io::stderr().is_terminal()
    }

    /// Says that `model` is being loaded, and counts the seconds until it is.
    pub fn start(model: &Path, port: u16) -> Self {
        let console = Self { loading: Arc::new(AtomicBool::new(true)), port };
        let name = model.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let size = std::fs::metadata(model).map_or(0.0, |m| m.len() as f64 / 1e6);
        let (loading, started) = (console.loading.clone(), Instant::now());
        std::thread::spawn(move || {
            while loading.load(Ordering::Acquire) {
                eprint!("\rLoading {name} ({size:.1} MB)… {:.1} s", started.elapsed().as_secs_f64());
                let _ = std::io::stderr().flush();
                std::thread::park_timeout(Duration::from_millis(100));
            }
        });
        console
    }

    /// Ends the line that counts.
    pub fn loaded(&self) {
        if self.loading.swap(false, Ordering::AcqRel) {
            eprintln!();
        }
    }

    pub fn serving(&self, server: &Server, model: &Model, device: &str) {
        self.loaded();
        eprintln!("{}", introduction(&server.identity.name, model, device, self.port));
    }
}

fn introduction(name: &str, model: &Model, device: &str, port: u16) -> String {
    let mut text = format!("Serving {name} on {device}, port {port}: REST and gRPC. Ctrl-C stops it.\n");
    let width = model.inputs.iter().chain(&model.outputs).map(|t| t.name.len()).max().unwrap_or(0);
    for (title, specs) in [("inputs", &model.inputs), ("outputs", &model.outputs)] {
        for (index, spec) in specs.iter().enumerate() {
            let title = if index == 0 { title } else { "" };
            text.push_str(&format!("\n  {title:<8} {:<width$}  {spec}", spec.name));
        }
    }
    text.push_str(&format!("\n\n  curl localhost:{port}/v2/models/{name}"));
    if let Some(body) = example(&model.inputs) {
        text.push_str(&format!("\n  curl localhost:{port}/v2/models/{name}/infer -d '{body}'"));
    }
    text.push('\n');
    text
}

/// A request of zeros, if it is short.
fn example(inputs: &[TensorSpec]) -> Option<String> {
    let tensor = |spec: &TensorSpec| {
        let shape: Vec<i64> = spec.shape.iter().map(|dim| if *dim < 0 { 1 } else { *dim }).collect();
        let count = shape.iter().try_fold(1i64, |n, dim| n.checked_mul(*dim))?;
        let element = match spec.datatype {
            Datatype::Bool => "false",
            Datatype::Bytes => "\"\"",
            Datatype::Fp16 | Datatype::Bf16 => return None, // no form in JSON
            _ => "0",
        };
        if count > EXAMPLE_ELEMENTS {
            return None;
        }
        let data = vec![element; usize::try_from(count).ok()?].join(",");
        let name = serde_json::to_string(&spec.name).ok()?;
        Some(format!(r#"{{"name":{name},"datatype":"{}","shape":{shape:?},"data":[{data}]}}"#, spec.datatype))
    };
    let tensors: Option<Vec<String>> = inputs.iter().map(tensor).collect();
    Some(format!(r#"{{"inputs":[{}]}}"#, tensors?.join(",")))
}

#[cfg(test)]
mod tests;
