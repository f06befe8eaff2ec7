//! Requests that wait for a pod: bounded by count, bytes and time, answered in the order of their arrival.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::refused::Refused;
use crate::api::RouteLimits;
use crate::protocol::{Error, Kind};

/// What a request gets when its turn comes: `T`, a place among those that run.
#[derive(Debug)]
pub struct Queue<T> {
    inner: Mutex<Inner<T>>,
    length: AtomicUsize,
}

#[derive(Debug)]
struct Inner<T> {
    waiters: BTreeMap<u64, Waiter<T>>,
    bytes: usize,
    next: u64,
}

#[derive(Debug)]
struct Waiter<T> {
    target: Option<i64>,
    bytes: usize,
    turn: oneshot::Sender<T>,
}

/// A place in the queue, given up when it is dropped.
#[derive(Debug)]
pub struct Place<'a, T> {
    queue: &'a Queue<T>,
    pub number: u64,
    pub turn: oneshot::Receiver<T>,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        let inner = Inner { waiters: BTreeMap::new(), bytes: 0, next: 0 };
        Self { inner: Mutex::new(inner), length: AtomicUsize::new(0) }
    }
}

impl<T> Queue<T> {
    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn len(&self) -> usize {
        self.length.load(Ordering::SeqCst)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// For one who has been accepted without a wait.
    pub fn number(&self) -> u64 {
        let mut inner = self.lock();
        inner.next += 1;
        inner.next
    }

    /// `number`: of a place that the request had before; it has been accepted and is not refused now.
    ///
    /// # Errors
    /// `Kind::Unavailable`: which bound is reached.
    pub fn enter(
        &self,
        target: Option<i64>,
        bytes: usize,
        number: Option<u64>,
        limits: &RouteLimits,
    ) -> Result<Place<'_, T>, (Refused, Error)> {
        let mut inner = self.lock();
        let reached =
            |limit: i64, would_be: usize| usize::try_from(limit).is_ok_and(|limit| would_be > limit);
        if number.is_none() && reached(limits.queue_requests, inner.waiters.len() + 1) {
            return Err((
                Refused::QueueRequests,
                unavailable(format!(
                    "no pod is ready, and {} requests wait already (spec.traffic.queue.maxRequests)",
                    inner.waiters.len()
                )),
            ));
        }
        if number.is_none() && reached(limits.queue_bytes, inner.bytes.saturating_add(bytes)) {
            return Err((
                Refused::QueueBytes,
                unavailable(format!(
                    "no pod is ready, and {} bytes wait already (spec.traffic.queue.maxBytes)",
                    inner.bytes
                )),
            ));
        }
        let number = number.unwrap_or_else(|| {
            inner.next += 1;
            inner.next
        });
        let (sender, turn) = oneshot::channel();
        inner.waiters.insert(number, Waiter { target, bytes, turn: sender });
        inner.bytes += bytes;
        self.length.store(inner.waiters.len(), Ordering::SeqCst);
        Ok(Place { queue: self, number, turn })
    }

    /// Takes out who may go, in order. `may`: Some(what it gets) for a target, None: not now; false: nobody else now.
    pub fn release(&self, mut may: impl FnMut(Option<i64>) -> Step<T>) -> Vec<(oneshot::Sender<T>, T)> {
        let mut inner = self.lock();
        let mut going = Vec::new();
        for (number, waiter) in &inner.waiters {
            match may(waiter.target) {
                Step::Go(place) => going.push((*number, place)),
                Step::Stay => {}
                Step::Stop => break,
            }
        }
        let mut released = Vec::with_capacity(going.len());
        for (number, place) in going {
            if let Some(waiter) = inner.waiters.remove(&number) {
                inner.bytes -= waiter.bytes;
                released.push((waiter.turn, place));
            }
        }
        self.length.store(inner.waiters.len(), Ordering::SeqCst);
        released
    }

    fn leave(&self, number: u64) {
        let mut inner = self.lock();
        if let Some(waiter) = inner.waiters.remove(&number) {
            inner.bytes -= waiter.bytes;
        }
        self.length.store(inner.waiters.len(), Ordering::SeqCst);
    }
}

/// What becomes of one that waits.
pub enum Step<T> {
    Go(T),
    Stay,
    Stop,
}

impl<T> Drop for Place<'_, T> {
    fn drop(&mut self) {
        self.queue.leave(self.number);
    }
}

pub fn unavailable(message: impl Into<String>) -> Error {
    Error::new(Kind::Unavailable, message)
}

#[cfg(test)]
mod tests;
