//! What the gateway costs: `make bench ONLY=gateway`.
//!
//! The same server is asked directly and through the gateway, in turn. The gateway is the binary, with an API server of
//! this process that tells it of one pod, on this machine.

#[path = "../report.rs"]
mod report;

#[path = "../server/connection.rs"]
mod connection;
#[path = "../server/http2.rs"]
mod http2;
#[path = "../server/load.rs"]
#[allow(dead_code)]
mod load;
#[path = "../server/model.rs"]
#[allow(dead_code)]
mod model;
#[path = "../server/process.rs"]
#[allow(dead_code)]
mod process;
#[path = "../server/raw.rs"]
#[allow(dead_code)]
mod raw;

mod api;

use std::sync::Arc;
use std::time::Duration;

use connection::Target;
use load::{Measured, Times, closed};
use model::{Form, Model};
use process::{Neighbours, Server, free_port, until_answered};
use raw::Raw;
use report::{Goal, figure, number, say};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    if let Some((command, rest)) = arguments.split_first()
        && command == "raw"
    {
        return raw::child(rest);
    }
    // A part of the figures, whose prefix is FIGURE.
    let wanted = std::env::var("FIGURE").unwrap_or_default();
    let parts: [(&str, fn()); 3] = [("gateway.cost", cost), ("gateway.real", real), ("gateway.rss", memory)];
    parts.iter().filter(|(name, _)| name.starts_with(&wanted)).for_each(|(_, part)| part());
}

/// Directly and through the gateway, one after the other.
struct Sample {
    direct: Measured,
    through: Measured,
}

struct Pair {
    server: Server,
    gateway: api::Gateway,
    model: Model,
    expected: Arc<Vec<Vec<f32>>>,
    port: u16,
}

impl Pair {
    fn start(model: Model, arguments: &[&str], routes: usize) -> Self {
        let expected = Arc::new(Raw::start(model, 1, 1, 1).expected.clone());
        // The gateway knows no other port of a pod.
        let port = modelwright::formats::ports::INFERENCE;
        let server = Server::serve(&model.path(), port, arguments);
        let gateway = api::Gateway::start(free_port(), routes);
        let pair = Self { server, gateway, model, expected, port };
        until_answered(&pair.target(Form::Binary, pair.port));
        until_answered(&pair.target(Form::Binary, pair.gateway.port));
        pair
    }

    fn target(&self, form: Form, port: u16) -> Target {
        Target { port, name: "m", model: self.model, form, expected: self.expected.clone() }
    }

    fn rounds(&self, form: Form, connections: usize) -> Vec<Sample> {
        let measured = Duration::from_secs(number("SECONDS", 2) as u64);
        let times = Times { ramp: Duration::from_millis(200), measured };
        let (direct, through) = (self.target(form, self.port), self.target(form, self.gateway.port));
        let watch = Neighbours::watch();
        let samples = (0..number("ROUNDS", 7))
            .map(|_| Sample {
                direct: closed(&direct, self.server.pid(), connections, times),
                through: closed(&through, self.gateway.pid(), connections, times),
            })
            .collect();
        let (others, stolen) = Neighbours::watch().since(&watch);
        say(&format!(
            "{:?} {form:?} c{connections}: other processes took {others:.2} cores, and {stolen:.2} were not given",
            self.model
        ));
        samples
    }
}

fn median(samples: &[Sample], of: impl Fn(&Sample) -> f64) -> (f64, String) {
    let mut values: Vec<f64> = samples.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    let middle = (values[values.len() / 2] + values[(values.len() - 1) / 2]) / 2.0;
    let spread =
        format!("median of {} rounds, {:.3} to {:.3}", values.len(), values[0], values[values.len() - 1]);
    (middle, spread)
}

/// A model that takes 0.1 ms, asked with 3.6 kB.
fn cost() {
    let pair = Pair::start(Model::Tiny, &["--max-batch-size=1"], 1);
    for (name, form, most) in
        [("gateway.http.cpu_ms", Form::Binary, 0.06), ("gateway.grpc.cpu_ms", Form::Grpc, 0.08)]
    {
        let samples = pair.rounds(form, 8);
        let (value, spread) = median(&samples, |s| s.through.server_cpu_ms);
        let how = format!("CPU of the gateway a request, 8 connections; {spread}");
        figure(name, value, "ms", Some(Goal::AtMost(most)), &how);
    }
    let samples = pair.rounds(Form::Binary, 1);
    let (value, spread) = median(&samples, |s| s.through.percentile(50.0) - s.direct.percentile(50.0));
    let how = format!("p50 through the gateway less p50 directly, one HTTP connection; {spread}");
    figure("gateway.c1.p50_added_ms", value, "ms", Some(Goal::AtMost(0.2)), &how);
}

fn real() {
    let pair = Pair::start(Model::Real, &[], 1);
    for connections in [8, 32] {
        let samples = pair.rounds(Form::Binary, connections);
        let (value, spread) = median(&samples, |s| s.through.per_second / s.direct.per_second);
        let (direct, _) = median(&samples, |s| s.direct.per_second);
        let (server, _) = median(&samples, |s| s.direct.server_cpu_ms);
        let (gateway, _) = median(&samples, |s| s.through.server_cpu_ms);
        let how = format!(
            "requests/s ÷ those without the gateway, {direct:.0}, HTTP; CPU a request: server {server:.3} ms, gateway \
             {gateway:.3} ms; {spread}"
        );
        figure(&format!("gateway.real.c{connections}"), value, "ratio", Some(Goal::AtLeast(0.97)), &how);
    }
}

fn memory() {
    let pair = Pair::start(Model::Tiny, &["--max-batch-size=1"], 1000);
    for form in [Form::Binary, Form::Grpc] {
        let target = pair.target(form, pair.gateway.port);
        let times = Times { ramp: Duration::from_millis(200), measured: Duration::from_secs(2) };
        say(&format!("memory: {} answers", closed(&target, pair.gateway.pid(), 32, times).answered));
    }
    let rss = report::proc_mb(pair.gateway.pid(), "status", "VmRSS:");
    let how = "resident memory with 1,000 routes of a pod each, after load from 32 connections over HTTP, then gRPC";
    figure("gateway.rss_mb.1000_routes", rss, "MB", Some(Goal::AtMost(25.0)), how);
}
