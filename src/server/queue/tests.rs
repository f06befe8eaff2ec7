use bytes::Bytes;

use super::*;
use crate::protocol::Datatype;
use crate::server::engine::fake::{Puppeteer, fake};

const LONG: Duration = Duration::from_secs(60);

fn start(requests: usize) -> (Arc<Queue>, Puppeteer) {
    start_with(requests, None)
}

fn start_with(requests: usize, batching: Option<Batching>) -> (Arc<Queue>, Puppeteer) {
    let (runner, puppeteer) = fake();
    let limits = Limits { requests, bytes: 1 << 20 };
    (Queue::start(vec![runner], batching, limits, Metrics::new("m-r1")).unwrap().into(), puppeteer)
}

fn batching() -> Option<Batching> {
    let axes = BatchAxes { inputs: vec![0], outputs: vec![0] };
    Some(Batching { axes, max_rows: None, delay: Duration::ZERO })
}

fn request(inputs: Vec<Tensor>, allowed: Duration) -> Request {
    Request { inputs, outputs: vec![0], priority: 5, deadline: Deadline::new(Instant::now(), allowed) }
}

impl Queue {
    fn waiting(&self) -> usize {
        self.shared.lock().former.len()
    }
}

async fn until_waiting(queue: &Queue, count: usize) {
    while queue.waiting() != count {
        tokio::task::yield_now().await;
    }
}

fn tensor(value: u8) -> Vec<Tensor> {
    vec![Tensor::new("x".into(), Datatype::Uint8, vec![1], Bytes::copy_from_slice(&[value])).unwrap()]
}

fn send(queue: &Arc<Queue>, value: u8) -> tokio::task::JoinHandle<Result<Vec<Tensor>, Error>> {
    let queue = queue.clone();
    tokio::spawn(async move {
        queue.run(request(tensor(value), LONG)).await.map(|result| result.expect("the fake answers"))
    })
}

async fn began(puppeteer: Puppeteer) -> Puppeteer {
    tokio::task::spawn_blocking(move || {
        puppeteer.began.recv_timeout(LONG).unwrap();
        puppeteer
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn a_full_queue_refuses_at_once_and_the_rest_is_answered_in_order() {
    let (queue, puppeteer) = start(1);
    let running = send(&queue, 1);
    let puppeteer = began(puppeteer).await;
    let waiting = send(&queue, 2);
    until_waiting(&queue, 1).await;
    let refused = queue.run(request(tensor(3), LONG)).await.unwrap_err();
    assert_eq!(refused, Error::new(Kind::Unavailable, "the queue is full"));
    puppeteer.results.send(None).unwrap();
    puppeteer.results.send(None).unwrap();
    assert_eq!(running.await.unwrap().unwrap(), tensor(1));
    assert_eq!(waiting.await.unwrap().unwrap(), tensor(2));
}

#[tokio::test]
async fn a_client_that_goes_away_takes_its_job_along() {
    let (queue, puppeteer) = start(8);
    let running = send(&queue, 1);
    let puppeteer = began(puppeteer).await;
    let gone = send(&queue, 2);
    until_waiting(&queue, 1).await;
    gone.abort();
    assert!(gone.await.unwrap_err().is_cancelled());
    assert_eq!(queue.waiting(), 0, "its place is free at once");
    let last = send(&queue, 3);
    puppeteer.results.send(None).unwrap();
    puppeteer.results.send(None).unwrap();
    assert_eq!(running.await.unwrap().unwrap(), tensor(1));
    assert_eq!(last.await.unwrap().unwrap(), tensor(3));
    assert_eq!(puppeteer.began.try_iter().count(), 1, "the job of the client that went was never run");
}

#[tokio::test]
async fn a_deadline_that_passes_is_said_and_the_job_is_not_run() {
    let (queue, puppeteer) = start(8);
    let running = send(&queue, 1);
    let puppeteer = began(puppeteer).await;
    let late = queue.run(request(tensor(2), Duration::ZERO)).await.unwrap_err();
    assert_eq!(late.kind, Kind::DeadlineExceeded);
    puppeteer.results.send(None).unwrap();
    running.await.unwrap().unwrap();
    drop(queue);
    assert_eq!(puppeteer.began.iter().count(), 0);
}

/// Three requests behind one that runs.
async fn three_behind_one(
    queue: &Arc<Queue>,
    puppeteer: Puppeteer,
) -> (Puppeteer, Vec<tokio::task::JoinHandle<Result<Vec<Tensor>, Error>>>) {
    let mut sent = vec![send(queue, 0)];
    let puppeteer = began(puppeteer).await;
    for value in 1..=3 {
        sent.push(send(queue, value));
        until_waiting(queue, value as usize).await;
    }
    (puppeteer, sent)
}

#[tokio::test]
async fn what_waits_shares_a_run_and_each_gets_its_own_answer() {
    let (queue, puppeteer) = start_with(8, batching());
    let (puppeteer, sent) = three_behind_one(&queue, puppeteer).await;
    puppeteer.results.send(None).unwrap();
    puppeteer.results.send(None).unwrap();
    for (value, answer) in sent.into_iter().enumerate() {
        assert_eq!(answer.await.unwrap().unwrap(), tensor(value as u8));
    }
    assert_eq!(puppeteer.began.try_iter().collect::<Vec<_>>(), [[3]], "one run of three rows");
}

#[tokio::test]
async fn a_request_that_fails_does_not_spoil_its_neighbours() {
    let (queue, puppeteer) = start_with(8, batching());
    let (puppeteer, sent) = three_behind_one(&queue, puppeteer).await;
    let refusal = || Some(RunError::Refused("token 9 is out of range".into()));
    // The first; the three together; then each: the second of them is the culprit.
    for result in [None, refusal(), None, refusal(), None] {
        puppeteer.results.send(result).unwrap();
    }
    let mut failed = Vec::new();
    for (value, answer) in sent.into_iter().enumerate() {
        match tokio::spawn(answer).await.unwrap() {
            Ok(answer) => assert_eq!(answer.unwrap(), tensor(value as u8)),
            Err(_) => failed.push(value), // `send` expects an answer
        }
    }
    assert_eq!(failed, [2]);
}

#[tokio::test]
async fn a_deadline_that_can_not_be_met_is_refused_at_once() {
    let (queue, puppeteer) = start_with(8, batching());
    let slow = |rows: usize| 100.0 + rows as f64;
    let (shape, _) = queue.shared.shape(&tensor(1), &[0]);
    for rows in [1, 1, 1, 2, 2, 2] {
        queue.shared.lock().curves.entry(shape.clone()).or_default().observe(rows, slow(rows));
    }
    let refused = queue.run(request(tensor(1), Duration::from_secs(50))).await.unwrap_err();
    assert_eq!(refused.kind, Kind::DeadlineExceeded);
    assert!(refused.message.starts_with("the requests before this one take 101"), "{}", refused.message);
    drop(queue);
    assert_eq!(puppeteer.began.iter().count(), 0);
}

#[tokio::test]
async fn an_output_that_does_not_follow_its_inputs_ends_the_sharing() {
    let axes = BatchAxes { inputs: vec![0], outputs: vec![1] };
    let (queue, puppeteer) = start_with(8, Some(Batching { axes, max_rows: None, delay: Duration::ZERO }));
    let (puppeteer, sent) = three_behind_one(&queue, puppeteer).await;
    for _ in 0..5 {
        puppeteer.results.send(None).unwrap();
    }
    for (value, answer) in sent.into_iter().enumerate() {
        assert_eq!(answer.await.unwrap().unwrap(), tensor(value as u8));
    }
    assert_eq!(queue.row_limit(), None);
}

/// Runs until its brake is put on.
struct Endless(Arc<Pedal>, std::sync::mpsc::Sender<()>);

#[derive(Default)]
struct Pedal {
    on: Mutex<bool>,
    moved: std::sync::Condvar,
}

impl Brake for Pedal {
    fn put_on(&self) {
        *self.on.lock().unwrap() = true;
        self.moved.notify_all();
    }

    fn release(&self) {
        *self.on.lock().unwrap() = false;
        self.moved.notify_all();
    }
}

impl Runner for Endless {
    fn run(&mut self, _: &[Tensor], _: &[usize]) -> Result<Vec<Tensor>, RunError> {
        let _ = self.1.send(());
        drop(self.0.moved.wait_while(self.0.on.lock().unwrap(), |on| !*on).unwrap());
        Err(RunError::Failed("ended".into()))
    }

    fn brake(&self) -> Option<Arc<dyn Brake>> {
        Some(self.0.clone())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_ended_when_all_its_deadlines_have_passed_and_the_next_is_not() {
    let (pedal, (began, begins)) = (Arc::new(Pedal::default()), std::sync::mpsc::channel());
    let runner = Box::new(Endless(pedal.clone(), began));
    let limits = Limits { requests: 8, bytes: 1 << 20 };
    let queue = Arc::new(Queue::start(vec![runner], None, limits, Metrics::new("m-r1")).unwrap());
    let begun = || begins.recv_timeout(LONG).unwrap();

    // A thread that wakes up after a deadline runs nothing.
    let mut allowed = Duration::from_millis(20);
    loop {
        let late = queue.run(request(tensor(1), allowed)).await.unwrap_err();
        assert_eq!(late.kind, Kind::DeadlineExceeded);
        if begins.recv_timeout(Duration::from_secs(1)).is_ok() {
            break;
        }
        allowed *= 2;
        assert!(allowed < LONG, "it never began");
    }
    queue.end_overlong();
    let patient = send(&queue, 2);
    tokio::task::block_in_place(begun);
    queue.end_overlong();
    assert!(!*pedal.on.lock().unwrap(), "it was released, and the second request may still wait");
    patient.abort();
    pedal.put_on();
}

#[test]
fn the_capacity_is_all_threads_at_the_knee_of_the_curve_that_most_runs_were_of() {
    let (queue, _puppeteer) = start_with(8, batching());
    assert_eq!(queue.capacity(), None);
    let threads = queue.shared.brakes.len() as f64;
    let (shape, _) = queue.shared.shape(&tensor(1), &[0]);
    let observe = |rows: usize| {
        let mut state = queue.shared.lock();
        state.curves.entry(shape.clone()).or_default().observe(rows, 0.1 * (0.2 + 0.8 * rows as f64));
    };
    (0..3).for_each(|_| observe(1));
    let alone = queue.capacity().unwrap();
    assert_eq!((alone.concurrency, alone.per_second.round()), (threads, threads * 10.0));
    (0..3).for_each(|_| observe(4));
    let cap = queue.row_limit().unwrap() as f64;
    let knee = queue.capacity().unwrap();
    assert_eq!(knee.concurrency, threads * cap);
    assert!(knee.per_second > alone.per_second * 1.1, "{knee:?}");
    queue.shared.lock().rows = 2.0;
    assert_eq!(queue.capacity().unwrap().concurrency, threads * cap / 2.0, "a request has two rows");
}
