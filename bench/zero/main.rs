//! To zero and back: `make bench ONLY=zero`, with CYCLES= and SEED=.
//!
//! One small ModelDeployment (silero-vad) on the local cluster, in that cluster's network. A cycle is a decision for zero
//! and the request that comes at a seeded moment around it: as it is made, while every gateway is told, while the pod
//! ends, and when nothing is left. Every answer is compared with that of the same question to a warm pod.

#[path = "../server/model.rs"]
#[allow(dead_code)]
mod model;
#[path = "../report.rs"]
mod report;
mod runtime;
mod sight;
#[path = "../../tests/e2e/support/mod.rs"]
#[allow(dead_code, unused_imports)]
mod support;

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use k8s_openapi::api::core::v1::Service;
use modelwright::api::RouteMode;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use model::{Form, Model, Random, VARIANTS, http_request};
use report::{Goal, figure, number, say};
use runtime::Runtime;
use sight::Sight;
use support::{Space, in_namespace, wait};

const NAME: &str = "voice";
/// Of a request; more than any queue of this bench needs.
const PATIENCE: Duration = Duration::from_secs(60);

/// When a request comes.
#[derive(Clone, Copy, Debug)]
enum Arrival {
    /// About when the decision is made.
    Early,
    /// The route has just said Hold.
    Held,
    /// The pod was told to go.
    Ending,
    /// Nothing is left.
    Late,
}

const ARRIVALS: [Arrival; 4] = [Arrival::Early, Arrival::Held, Arrival::Ending, Arrival::Late];

#[derive(Clone, Debug)]
struct Asked {
    sent: SystemTime,
    /// The first byte.
    answered: SystemTime,
    body: Vec<u8>,
}

/// A request that found no pod, and the pod that was made for it.
struct Woken {
    asked: Asked,
    pod: String,
}

#[tokio::main(worker_threads = 1)]
async fn main() {
    let cycles = number("CYCLES", 200);
    let mut random = Random::new(number("SEED", 1) as u64);
    in_namespace("zero", async |space| {
        let address = open(space).await;
        let sight = Sight::start(space).await;
        let runtime = Runtime::start();
        let mut expected = Vec::new();
        for variant in 0..VARIANTS {
            expected.push(ask(address, variant).await.expect("a warm answer").body);
        }
        let (mut done, mut requests, mut lost, mut woken) = (0, 0, 0, Vec::new());
        let mut counts = [0; ARRIVALS.len()];
        while done < cycles {
            let kind = (random.next() % ARRIVALS.len() as u64) as usize;
            let begun = SystemTime::now();
            arrive(ARRIVALS[kind], &sight, &mut random).await;
            let burst = 1 + random.next() % 4;
            let asking = (0..burst).map(|i| {
                let variant = random.next() as usize % VARIANTS;
                // The first alone, others while it may still wait.
                let pause = Duration::from_secs_f64(if i == 0 { 0.0 } else { 0.6 * random.unit() });
                let expected = &expected[variant];
                async move {
                    tokio::time::sleep(pause).await;
                    let asked = ask(address, variant).await?;
                    if asked.body != *expected {
                        return Err("it is another answer than a warm pod's".into());
                    }
                    Ok::<_, String>(asked)
                }
            });
            let asked: Vec<_> = futures::future::join_all(asking).await;
            requests += asked.len();
            for why in asked.iter().filter_map(|asked| asked.as_ref().err()) {
                lost += 1;
                say(&format!("lost, {:?}: {why}", ARRIVALS[kind]));
            }
            // One that came before the decision is no cycle.
            let decided = sight.held_since(begun);
            done += usize::from(decided);
            counts[kind] += usize::from(decided);
            if let Some(Ok(first)) = asked.into_iter().next()
                && let Some(pod) = sight.pod_made_within(first.sent, first.answered)
            {
                woken.push(Woken { asked: first, pod });
            }
            if requests % 50 < burst as usize {
                say(&format!("{done} cycles, {} of them from nothing, {requests} requests", woken.len()));
            }
        }
        // What the API says of the last pod comes later than its answer.
        tokio::time::sleep(Duration::from_secs(3)).await;
        tell(&counts, (requests, lost), &woken, &sight, &runtime);
    })
    .await;
}

fn tell(
    counts: &[usize],
    (requests, lost): (usize, usize),
    woken: &[Woken],
    sight: &Sight,
    runtime: &Runtime,
) {
    let by_kind: Vec<String> =
        ARRIVALS.iter().zip(counts).map(|(kind, count)| format!("{kind:?} {count}")).collect();
    let how = format!(
        "decisions for zero with a request around them: {}; {} of {requests} requests found no pod first",
        by_kind.join(", "),
        woken.len()
    );
    figure("zero.cycles", counts.iter().sum::<usize>() as f64, "cycles", Some(Goal::AtLeast(200.0)), &how);
    let how = "without an answer, or with another than a warm pod gives";
    figure("zero.lost", lost as f64, "requests", Some(Goal::AtMost(0.0)), how);

    let mut steps: Vec<(&str, Vec<f64>)> = Vec::new();
    let mut note = |step: &'static str, from: SystemTime, to: Option<SystemTime>| {
        let Some(to) = to else { return };
        let signed = match to.duration_since(from) {
            Ok(passed) => passed.as_secs_f64(),
            Err(before) => -before.duration().as_secs_f64(),
        };
        match steps.iter_mut().find(|(name, _)| *name == step) {
            Some((_, all)) => all.push(signed * 1e3),
            None => steps.push((step, vec![signed * 1e3])),
        }
    };
    let mut added = Vec::new();
    for Woken { asked, pod } in woken {
        let Some(seen) = sight.pod(pod) else { continue };
        let loader = runtime.started(pod, "modelwright-loader");
        let server = runtime.started(pod, "modelwright-server");
        note("pod created", asked.sent, Some(seen.created));
        note("pod has a node", asked.sent, seen.scheduled);
        note("loader started", asked.sent, loader);
        note("server started", asked.sent, server);
        note("answered", asked.sent, Some(asked.answered));
        note("address in the API", asked.sent, seen.addressed);
        note("Ready in the API", asked.sent, seen.ready);
        if let Some(server) = server {
            let before = seen.created.duration_since(asked.sent).unwrap_or_default();
            let after = asked.answered.duration_since(server).unwrap_or_default();
            added.push((before + after).as_secs_f64() * 1e3);
        }
    }
    say("milliseconds after the request was sent: median, 90th percentile, number");
    for (step, values) in &mut steps {
        say(&format!("{step:20} {:6.0} {:6.0} {:4}", at(values, 0.5), at(values, 0.9), values.len()));
    }
    let answered = steps.iter_mut().find(|(step, _)| *step == "answered");
    let Some((_, answered)) = answered else { return say("no request found the model at zero") };
    let how = format!(
        "median from a request at zero to its answer's first byte, new connection, through Service and gateway; \
         90th percentile {:.3}",
        at(answered, 0.9) / 1e3
    );
    figure("zero.first_answer_s", at(answered, 0.5) / 1e3, "s", Some(Goal::AtMost(0.9)), &how);
    let how = format!(
        "median of request to the pod's creation, by a watch, and the server's start, by containerd's event, to the \
         answer's first byte; 90th percentile {:.0}",
        at(&mut added, 0.9)
    );
    figure("zero.wake_added_ms", at(&mut added, 0.5), "ms", Some(Goal::AtMost(100.0)), &how);
}

fn at(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get((values.len() as f64 * share) as usize).copied().unwrap_or(f64::NAN)
}

/// The model, ready. Its address: the cluster's names are for pods.
async fn open(space: &Space) -> SocketAddr {
    let bytes = std::fs::read(Model::Tiny.path()).expect("the model");
    let mut spec = space.spec(&space.file("voice/model.onnx", &bytes).await);
    spec["autoscaling"] = json!({
        "minReplicas": 0, "maxReplicas": 1, "metric": "Concurrency", "target": 100, "scaleToZeroAfterSeconds": 1,
        "behavior": { "scaleDown": { "stabilizationWindowSeconds": 0 } },
    });
    space.apply(NAME, &spec).await;
    let address = wait("the Service's address", async || {
        let service = space.api::<Service>().get(NAME).await.map_err(|e| e.to_string())?;
        let ip = service.spec.and_then(|spec| spec.cluster_ip).ok_or("no cluster IP")?;
        Ok(SocketAddr::new(ip.parse().map_err(|_| ip)?, 80))
    })
    .await;
    wait("an answer", async || ask(address, 0).await).await;
    address
}

/// Returns when a request is to come.
async fn arrive(arrival: Arrival, sight: &Sight, random: &mut Random) {
    let mut pause = async |seconds: f64| {
        tokio::time::sleep(Duration::from_secs_f64(seconds * random.unit())).await;
    };
    match arrival {
        Arrival::Early => {
            // The decision falls a quarter of a second after the second that the spec gives, at most.
            tokio::time::sleep(Duration::from_millis(900)).await;
            pause(0.6).await;
        }
        Arrival::Held => {
            sight.until("the route holds", |state| state.mode == RouteMode::Hold).await;
            pause(0.05).await;
        }
        Arrival::Ending => {
            sight.until("a pod is told to go", |state| state.serving() == 0).await;
            pause(2.0).await;
        }
        Arrival::Late => {
            sight.until("no pod is left", |state| state.mode == RouteMode::Hold && state.left() == 0).await;
            pause(1.0).await;
        }
    }
}

/// One request on a connection of its own. What went wrong, if it has no good answer.
async fn ask(address: SocketAddr, variant: usize) -> Result<Asked, String> {
    let request = http_request(Model::Tiny, NAME, Form::Binary, variant);
    let sent = SystemTime::now();
    let asking = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        stream.write_all(&request).await?;
        let mut all = vec![0];
        stream.read_exact(&mut all).await?;
        let answered = SystemTime::now();
        while body(&all).is_none() {
            if stream.read_buf(&mut all).await? == 0 {
                return Err(std::io::Error::other("the connection ended before its answer"));
            }
        }
        Ok((answered, all))
    };
    let answer = tokio::time::timeout(PATIENCE, asking).await;
    let (answered, all) =
        answer.map_err(|_| format!("no answer in {PATIENCE:?}"))?.map_err(|e| e.to_string())?;
    let body = body(&all).unwrap_or_default();
    match all.starts_with(b"HTTP/1.1 200") {
        true => Ok(Asked { sent, answered, body: body.to_vec() }),
        false => Err(String::from_utf8_lossy(&all).into_owned()),
    }
}

/// None: it has not come whole.
fn body(answer: &[u8]) -> Option<&[u8]> {
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length: usize = length.and_then(|length| length.trim().parse().ok()).unwrap_or(0);
    answer.get(end..end + length)
}
