//! What became of each request, and the verdict on all of them. No clock: times come in.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::model;

/// Both protocols, each on connections of its own and on kept ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    RestNew,
    RestKept,
    GrpcNew,
    GrpcKept,
}

pub const WAYS: [Way; 4] = [Way::RestNew, Way::RestKept, Way::GrpcNew, Way::GrpcKept];

/// Since the book was opened.
pub type At = Duration;

#[derive(Clone, Debug)]
pub struct Entry {
    pub nonce: u64,
    pub way: Way,
    /// When it had to be sent; latency counts from here.
    pub due: At,
    pub done: At,
    pub outcome: Outcome,
    /// After a connection broke without an answer, as clients do it.
    pub retries: u8,
    /// On another connection, since this one had closed before it took the request.
    pub resent: u8,
}

#[derive(Clone, Debug)]
pub enum Outcome {
    Answered { version: i64, revision: u16, digest: u16 },
    Lost(Box<str>),
    Wrong(Box<str>),
}

/// When a version was one of the declared ones.
#[derive(Clone, Copy, Debug)]
struct Declared {
    version: i64,
    from: At,
    until: Option<At>,
}

#[derive(Default)]
pub struct Book {
    entries: Vec<Entry>,
    declared: Vec<Declared>,
    names: Vec<Box<str>>,
    /// Answers that nobody had asked for.
    unasked: Vec<String>,
}

impl Book {
    /// From now on this version may answer.
    pub fn declare(&mut self, version: i64, at: At) {
        if !self.declared.iter().any(|d| d.version == version && d.until.is_none()) {
            self.declared.push(Declared { version, from: at, until: None });
        }
    }

    /// A request that is sent from now on must not be answered by this version.
    pub fn retire(&mut self, version: i64, at: At) {
        for declared in self.declared.iter_mut().filter(|d| d.version == version && d.until.is_none()) {
            declared.until = Some(at);
        }
    }

    /// A header's value, kept once.
    pub fn name(&mut self, text: &str) -> u16 {
        let place = self.names.iter().position(|name| **name == *text).unwrap_or_else(|| {
            self.names.push(text.into());
            self.names.len() - 1
        });
        u16::try_from(place).expect("few revisions")
    }

    pub fn enter(&mut self, entry: Entry) {
        self.entries.push(entry);
    }

    pub fn unasked(&mut self, what: String) {
        self.unasked.push(what);
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn verdict(&self) -> Verdict {
        let mut verdict = Verdict { requests: self.entries.len(), ..Verdict::default() };
        verdict.twice = self.unasked.clone();
        let digests: BTreeMap<i64, String> =
            self.declared.iter().map(|d| (d.version, model::digest(d.version))).collect();
        // A revision has one version for ever.
        let mut versions: BTreeMap<u16, i64> = BTreeMap::new();
        let mut latencies = Vec::with_capacity(self.entries.len());
        for entry in &self.entries {
            verdict.retries += usize::from(entry.retries);
            verdict.resent += usize::from(entry.resent);
            *verdict.ways.entry(entry.way).or_default() += 1;
            latencies.push(entry.done.saturating_sub(entry.due));
            let line = |text: &dyn fmt::Display| {
                let (due, took) = (entry.due.as_secs_f64(), (entry.done - entry.due).as_secs_f64());
                format!("request {} at {due:.3} s, {:?}, {took:.3} s: {text}", entry.nonce, entry.way)
            };
            let (version, revision, digest) = match &entry.outcome {
                Outcome::Lost(why) => {
                    verdict.lost.push(line(why));
                    continue;
                }
                Outcome::Wrong(why) => {
                    verdict.wrong.push(line(why));
                    continue;
                }
                Outcome::Answered { version, revision, digest } => (*version, *revision, *digest),
            };
            let name = |index: u16| &*self.names[usize::from(index)];
            *verdict.answered.entry(name(revision).to_string()).or_default() += 1;
            let declared = self.declared.iter().any(|d| {
                d.version == version && d.from <= entry.done && d.until.is_none_or(|until| entry.due <= until)
            });
            if !declared {
                verdict.undeclared.push(line(&format!("version {version} by {}", name(revision))));
                continue;
            }
            if digests.get(&version).is_some_and(|right| right != name(digest)) {
                verdict.wrong.push(line(&format!("version {version} says it is {}", name(digest))));
            } else if *versions.entry(revision).or_insert(version) != version {
                verdict.wrong.push(line(&format!("{} answered as version {version} too", name(revision))));
            }
        }
        latencies.sort_unstable();
        let at = |share: usize| latencies.get(latencies.len() * share / 1000).copied().unwrap_or_default();
        (verdict.p50, verdict.p99) = (at(500), at(990));
        verdict.longest = latencies.last().copied().unwrap_or_default();
        verdict
    }
}

#[derive(Debug, Default)]
pub struct Verdict {
    pub requests: usize,
    pub lost: Vec<String>,
    pub twice: Vec<String>,
    pub undeclared: Vec<String>,
    pub wrong: Vec<String>,
    pub retries: usize,
    pub resent: usize,
    /// By revision.
    pub answered: BTreeMap<String, usize>,
    pub ways: BTreeMap<Way, usize>,
    pub p50: Duration,
    pub p99: Duration,
    pub longest: Duration,
}

impl Verdict {
    pub fn is_clean(&self) -> bool {
        [&self.lost, &self.twice, &self.undeclared, &self.wrong].into_iter().all(Vec::is_empty)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let ms = |time: Duration| time.as_secs_f64() * 1000.0;
        write!(
            f,
            "{} requests: {} lost, {} twice, {} undeclared, {} wrong; {} resent, {} retried; \
             p50 {:.1} ms, p99 {:.1} ms, longest {:.0} ms; by",
            self.requests,
            self.lost.len(),
            self.twice.len(),
            self.undeclared.len(),
            self.wrong.len(),
            self.resent,
            self.retries,
            ms(self.p50),
            ms(self.p99),
            ms(self.longest),
        )?;
        for (revision, count) in &self.answered {
            write!(f, " {revision} {count}")?;
        }
        for (kind, lines) in [
            ("lost", &self.lost),
            ("twice", &self.twice),
            ("undeclared", &self.undeclared),
            ("wrong", &self.wrong),
        ] {
            for line in lines.iter().take(20) {
                write!(f, "\n  {kind}: {line}")?;
            }
        }
        Ok(())
    }
}
