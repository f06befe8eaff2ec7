//! Requests at a fixed rate, whatever becomes of the ones before; those that are late are sent at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::book::{At, Book, Entry, Outcome, Verdict, WAYS};
use super::client::{Client, Target};

#[derive(Clone, Copy, Debug)]
pub struct Pace {
    pub per_second: f64,
    /// From the due time to the answer's end.
    pub patience: Duration,
    /// Of a request whose connection broke without an answer. Real clients have one or two; a test that has none
    /// proves more.
    pub retries: u8,
}

impl Default for Pace {
    fn default() -> Self {
        Self { per_second: 200.0, patience: Duration::from_secs(240), retries: 0 }
    }
}

/// Unanswered requests at a time: a bound for the client's memory, not of the load.
const UNANSWERED: usize = 20_000;

/// A load on a thread of its own, until it is stopped.
pub struct Load {
    book: Arc<Mutex<Book>>,
    opened: Instant,
    over: Arc<AtomicBool>,
    quiet: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Load {
    pub fn start(target: Target, pace: Pace) -> Self {
        let files = getrlimit(Resource::Nofile);
        let _ = setrlimit(Resource::Nofile, Rlimit { current: files.maximum, ..files });
        let (book, over) = (Arc::<Mutex<Book>>::default(), Arc::new(AtomicBool::new(false)));
        let quiet = Arc::<AtomicBool>::default();
        let opened = Instant::now();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let (writes, flags) = (book.clone(), (over.clone(), quiet.clone()));
        let load = async move { run(target, pace, opened, &writes, (&flags.0, &flags.1)).await };
        let thread = std::thread::spawn(move || runtime.block_on(load));
        Self { book, opened, over, quiet, thread: Some(thread) }
    }

    fn book<T>(&self, with: impl FnOnce(&mut Book, At) -> T) -> T {
        let now = self.opened.elapsed();
        with(&mut self.book.lock().unwrap_or_else(PoisonError::into_inner), now)
    }

    /// This version serves already: the first answer may be here before anybody could have declared it.
    pub fn serves(&self, version: i64) {
        self.book(|book, _| book.declare(version, At::ZERO));
    }

    /// This version may answer from now on: called before it is asked for.
    pub fn declare(&self, version: i64) {
        self.book(|book, now| book.declare(version, now));
    }

    /// This version must not answer what is sent from now on: called once the status says so.
    pub fn retire(&self, version: i64) {
        self.book(|book, now| book.retire(version, now));
    }

    /// No request, until `go_on`.
    pub fn rest(&self) {
        self.quiet.store(true, Ordering::Relaxed);
    }

    pub fn go_on(&self) {
        self.quiet.store(false, Ordering::Relaxed);
    }

    pub fn answered(&self) -> usize {
        self.book(|book, _| book.len())
    }

    /// Ends it when all that was sent has its outcome.
    pub fn stop(mut self) -> Verdict {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the load has not panicked");
        }
        self.book(|book, _| book.verdict())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

async fn run(
    target: Target,
    pace: Pace,
    opened: Instant,
    book: &Arc<Mutex<Book>>,
    (over, quiet): (&AtomicBool, &AtomicBool),
) {
    let client = Arc::new(Client::new(target, pace.retries, book.clone()));
    let unanswered = Arc::new(tokio::sync::Semaphore::new(UNANSWERED));
    let (mut nonce, mut rested) = (0, Duration::ZERO);
    while !over.load(Ordering::Relaxed) {
        let due = rested + Duration::from_secs_f64(nonce as f64 / pace.per_second);
        tokio::time::sleep_until((opened + due).into()).await;
        if quiet.load(Ordering::Relaxed) {
            rested += Duration::from_millis(5);
            continue;
        }
        nonce += 1;
        let way = WAYS[(nonce % 4) as usize];
        let (client, book) = (client.clone(), book.clone());
        let Ok(permit) = unanswered.clone().try_acquire_owned() else {
            let outcome = Outcome::Lost("the client has too many unanswered requests".into());
            let entry = Entry { nonce, way, due, done: opened.elapsed(), outcome, retries: 0, resent: 0 };
            book.lock().expect("no panic").enter(entry);
            continue;
        };
        tokio::spawn(async move {
            let left = (due + pace.patience).saturating_sub(opened.elapsed());
            let told = client.ask(nonce, way, left).await;
            let (outcome, retries, resent) = (told.outcome, told.retries, told.resent);
            let entry = Entry { nonce, way, due, done: opened.elapsed(), outcome, retries, resent };
            book.lock().expect("no panic").enter(entry);
            drop(permit);
        });
    }
    // Every one has a deadline.
    let _ = unanswered.acquire_many(UNANSWERED as u32).await;
}
