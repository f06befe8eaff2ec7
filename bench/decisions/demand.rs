//! Demand that changes so that another number of pods is due at once, and what came of it.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use modelwright::formats::{Demand, FORMAT_VERSION, GatewayReport};

use crate::common::{Request, shuffle};

/// Requests a second that a pod is good for.
pub const TARGET: u64 = 10;
/// Requests at once, so that even their mean over the decision's window, 10 s for a pod that starts at once, is far
/// above what one pod is good for.
const JUMP: u64 = 60 * TARGET;
/// Requests that wait: more than two pods answer while one starts. Their mean over the window needs but one pod, so that
/// with the last of them the second is at once too many.
const WAITING: u64 = 8 * TARGET;
/// A pod's start, and what it causes, is over by then.
const STILL: Duration = Duration::from_secs(3);
/// And the last change is out of the decision's window.
const FORGOTTEN: Duration = Duration::from_secs(12);

pub const KINDS: [Kind; 3] = [Kind::Rate, Kind::Waiting, Kind::Ended];

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// 1 to 2: many more requests a second. Back by itself, when the window has passed.
    Rate,
    /// 1 to 2: requests wait.
    Waiting,
    /// 2 to 1: these wait no more.
    Ended,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Rate => "a rate that jumps",
            Kind::Waiting => "requests that wait",
            Kind::Ended => "requests that wait no more",
        }
    }
}

pub struct Change {
    pub kind: Kind,
    pub sent: Timestamp,
    /// When the API server got the request to write, and when it answered.
    pub written: Option<(Timestamp, Timestamp)>,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    /// With one pod.
    Idle,
    /// The change of this number is not answered.
    Changing(usize),
    /// With two, after a change of this kind.
    Raised(Kind),
    /// Something was written that nobody asked for.
    Strayed,
}

struct Model {
    place: (String, String),
    counted: Demand,
    state: State,
    since: Instant,
}

#[derive(Default)]
pub struct Demands {
    models: Vec<Model>,
    by_place: HashMap<(String, String), usize>,
    /// Where the next idle model is looked for.
    next: usize,
    pub seen: Seen,
}

/// Since it was last taken.
#[derive(Default)]
pub struct Seen {
    pub changes: Vec<Change>,
    /// Ways back when a window had passed.
    pub by_itself: usize,
    pub stray: usize,
    /// Of the operator, by kind.
    pub writes: BTreeMap<String, usize>,
}

impl Demands {
    /// More models; `seed` says in which order they change.
    pub fn add(&mut self, places: impl Iterator<Item = (String, String)>, seed: usize) {
        let since = Instant::now() - FORGOTTEN;
        let model = |place| Model { place, counted: Demand::default(), state: State::Idle, since };
        self.models.extend(places.map(model));
        shuffle(&mut self.models, seed);
        let places = self.models.iter().enumerate();
        self.by_place = places.map(|(i, model)| (model.place.clone(), i)).collect();
    }

    /// The namespace, and what a gateway there is to say. None: no model is ready for a change of this kind.
    pub fn next(&mut self, kind: Kind) -> Option<(String, GatewayReport)> {
        let (wanted, since) = match kind {
            Kind::Ended => (State::Raised(Kind::Waiting), STILL),
            _ => (State::Idle, FORGOTTEN),
        };
        let fits = |model: &Model| model.state == wanted && model.since.elapsed() >= since;
        let chosen = match kind {
            // Who waits longest: a queue is not for ever.
            Kind::Ended => {
                let fit = self.models.iter().enumerate().filter(|(_, model)| fits(model));
                fit.min_by_key(|(_, model)| model.since)?.0
            }
            _ => {
                let count = self.models.len();
                (0..count).map(|i| (self.next + i) % count).find(|i| fits(&self.models[*i]))?
            }
        };
        if kind != Kind::Ended {
            self.next = chosen + 1;
        }
        let model = &mut self.models[chosen];
        let waited = model.since.elapsed().as_secs_f64();
        let (arrivals, request_seconds, held) = match kind {
            Kind::Rate => (JUMP, 0.01 * JUMP as f64, None),
            Kind::Waiting => (WAITING, 0.0, Some(WAITING)),
            Kind::Ended => (0, waited * WAITING as f64, Some(0)),
        };
        model.counted.arrivals += arrivals;
        model.counted.request_seconds += request_seconds;
        model.state = State::Changing(self.seen.changes.len());
        self.seen.changes.push(Change { kind, sent: Timestamp::MAX, written: None });
        let (namespace, name) = model.place.clone();
        let line = GatewayReport {
            format_version: FORMAT_VERSION,
            held: held.map(|held| (name.clone(), held)).into_iter().collect(),
            demand: Some(BTreeMap::from([(name, model.counted)])),
            ..GatewayReport::default()
        };
        Some((namespace, line))
    }

    /// Of the last change.
    pub fn sent(&mut self, at: Timestamp) {
        self.seen.changes.last_mut().expect("a change").sent = at;
    }

    /// A write of the operator.
    pub fn written(&mut self, request: &Request) {
        let seen = &mut self.seen;
        *seen.writes.entry(format!("{} {}", request.kind(), request.code())).or_insert(0) += 1;
        if request.kind() != "patch replicasets" || request.code() != 200 {
            return;
        }
        let name = request.name().strip_suffix("-r1").expect("a ReplicaSet of the first revision");
        let place = (request.namespace().to_string(), name.to_string());
        let model = &mut self.models[self.by_place[&place]];
        model.since = Instant::now();
        let times = (request.received_at(), request.answered_at());
        model.state = match model.state {
            State::Changing(number) if seen.changes[number].sent <= times.0 => {
                let change = &mut seen.changes[number];
                change.written = Some(times);
                if change.kind == Kind::Ended { State::Idle } else { State::Raised(change.kind) }
            }
            State::Raised(Kind::Rate) => {
                seen.by_itself += 1;
                State::Idle
            }
            _ => {
                seen.stray += 1;
                State::Strayed
            }
        };
    }

    pub fn is_waiting(&self) -> bool {
        self.seen.changes.iter().any(|change| change.written.is_none())
    }

    /// A change that is not answered by now stays so.
    pub fn take(&mut self) -> Seen {
        let changing = |model: &&mut Model| matches!(model.state, State::Changing(_));
        self.models.iter_mut().filter(changing).for_each(|model| model.state = State::Strayed);
        std::mem::take(&mut self.seen)
    }
}
