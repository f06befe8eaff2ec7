use bytes::Bytes;

use super::*;
use crate::protocol::Datatype;
use crate::server::engine::fake::{Puppeteer, fake};

const LONG: Duration = Duration::from_secs(60);

fn start(capacity: usize) -> (std::sync::Arc<Queue>, Puppeteer) {
    let (runner, puppeteer) = fake();
    (Queue::start(vec![runner], capacity, Metrics::new("m-r1")).unwrap().into(), puppeteer)
}

fn tensor(value: u8) -> Vec<Tensor> {
    vec![Tensor::new("x".into(), Datatype::Uint8, vec![1], Bytes::copy_from_slice(&[value])).unwrap()]
}

fn send(queue: &std::sync::Arc<Queue>, value: u8) -> tokio::task::JoinHandle<Result<Vec<Tensor>, Error>> {
    let queue = queue.clone();
    tokio::spawn(async move {
        queue
            .run(tensor(value), vec![0], Deadline::new(Instant::now(), LONG))
            .await
            .map(|result| result.expect("the fake answers"))
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
    while queue.metrics.queue_depth.get() == 0 {
        tokio::task::yield_now().await;
    }
    let refused = queue.run(tensor(3), vec![0], Deadline::new(Instant::now(), LONG)).await.unwrap_err();
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
    while queue.metrics.queue_depth.get() == 0 {
        tokio::task::yield_now().await;
    }
    gone.abort();
    assert!(gone.await.unwrap_err().is_cancelled());
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
    let late =
        queue.run(tensor(2), vec![0], Deadline::new(Instant::now(), Duration::ZERO)).await.unwrap_err();
    assert_eq!(late.kind, Kind::DeadlineExceeded);
    puppeteer.results.send(None).unwrap();
    running.await.unwrap().unwrap();
    drop(queue);
    assert_eq!(puppeteer.began.iter().count(), 0);
}
