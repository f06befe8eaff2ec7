//! When containers began to run, by containerd's own events: the API says it up to a second later, in whole seconds.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use serde_json::Value;

/// Looks at a process that has just begun. Other containers' never become one of ours.
const TRIES: usize = 10;

/// By pod uid and program.
type Started = Arc<Mutex<HashMap<(String, String), SystemTime>>>;

/// Follows the containerds whose sockets CONTAINERD names.
pub struct Runtime {
    started: Started,
    followed: Vec<Child>,
}

impl Runtime {
    pub fn start() -> Self {
        let sockets = std::env::var("CONTAINERD").expect("CONTAINERD names the nodes' sockets");
        let started = Started::default();
        let followed = sockets.split_whitespace().map(|socket| {
            let mut events = Command::new("ctr")
                .args(["--address", socket, "--namespace", "k8s.io", "events"])
                .stdout(Stdio::piped())
                .spawn()
                .expect("ctr runs");
            let lines = BufReader::new(events.stdout.take().expect("piped")).lines();
            let started = started.clone();
            std::thread::spawn(move || {
                for line in lines.map_while(Result::ok) {
                    if let Some((container, at)) = start(&line) {
                        started.lock().expect("no panic").entry(container).or_insert(at);
                    }
                }
            });
            events
        });
        let followed = followed.collect();
        Self { started, followed }
    }

    pub fn started(&self, pod: &str, program: &str) -> Option<SystemTime> {
        self.started.lock().expect("no panic").get(&(pod.into(), program.into())).copied()
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        for events in &mut self.followed {
            let _ = events.kill();
            let _ = events.wait();
        }
    }
}

/// `2026-11-29 18:00:00.123456789 +0000 UTC k8s.io /tasks/start {"container_id":"…","pid":1}`. None: something else, or it
/// has ended.
fn start(line: &str) -> Option<((String, String), SystemTime)> {
    let (head, event) = line.split_once(" k8s.io /tasks/start ")?;
    let event: Value = serde_json::from_str(event).ok()?;
    let mut words = head.split(' ');
    let at: Timestamp = format!("{}T{}Z", words.next()?, words.next()?).parse().ok()?;
    let read = |file: &str| std::fs::read_to_string(format!("/proc/{}/{file}", event["pid"])).ok();
    let program = (0..TRIES).find_map(|_| {
        let program = read("cmdline")?.split('\0').next()?.rsplit('/').next()?.to_string();
        if program.starts_with("modelwright-") {
            return Some(program);
        }
        // runc is about to become it.
        std::thread::sleep(Duration::from_millis(5));
        None
    })?;
    let groups = read("cgroup")?;
    let pod = groups.lines().find_map(|line| line.split("/pod").nth(1)?.split('/').next())?;
    Some(((pod.into(), program), at.into()))
}
