use std::sync::mpsc::{Receiver, Sender, channel};

use super::*;

fn observer() -> std::sync::Arc<crate::server::trail::Observer> {
    let identity = crate::server::model::Identity {
        name: "m".into(),
        version: "1".into(),
        revision: Some("m-r1".into()),
        digest: None,
    };
    std::sync::Arc::new(crate::server::trail::Observer {
        identity,
        access_log: None,
        tracer: None,
        propagator: Default::default(),
    })
}

fn trail(uri: &str) -> Trail {
    let request = axum::extract::Request::post(uri).body(axum::body::Body::empty()).unwrap();
    Trail::of(observer(), &request)
}

/// Tells what is written, one piece at a time, when the test lets it.
struct Reader {
    pieces: Sender<Vec<u8>>,
    lets: Receiver<()>,
}

impl Write for Reader {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let told = self.lets.recv().is_ok() && self.pieces.send(bytes.into()).is_ok();
        told.then_some(bytes.len()).ok_or_else(|| io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_reader_that_stands_still_holds_up_nobody_and_what_it_missed_is_counted() {
    let ((pieces, written), (lets, waits)) = (channel(), channel());
    let log = AccessLog::to(Reader { pieces, lets: waits }).unwrap();
    let trail = trail("/v2");
    // The writer's own buffer holds some, and it may have taken one.
    let sent = WAITING + 1000;
    for _ in 0..sent {
        log.tell(&trail, &Notes::default(), Instant::now(), None);
    }
    let left_out = log.left_out.load(Ordering::Relaxed);
    assert!(left_out > 0, "the queue is bounded");
    drop(log);
    let mut text = Vec::new();
    while lets.send(()).is_ok() {
        let Ok(piece) = written.recv() else { break };
        text.extend(piece);
    }
    let lines = text.iter().filter(|byte| **byte == b'\n').count();
    assert_eq!(lines as u64 + left_out, sent as u64);
}

#[test]
fn a_line_is_an_object_without_the_query() {
    let ((pieces, written), (lets, waits)) = (channel(), channel());
    let log = AccessLog::to(Reader { pieces, lets: waits }).unwrap();
    lets.send(()).unwrap();
    let mut trail = trail("/v2/models/m/infer?key=secret");
    trail.status = Some(axum::http::StatusCode::OK);
    trail.sent = 7;
    let notes = Notes { request_id: "a \"b\"".into(), ..Notes::default() };
    let ended = trail.started + Duration::from_micros(1500);
    log.tell(&trail, &notes, ended, TraceId::from_hex("0af7651916cd43dd8448eb211c80319c").ok());
    let mut line: serde_json::Value = serde_json::from_slice(&written.recv().unwrap()).unwrap();
    let time = line["time"].take();
    assert!(time.as_str().is_some_and(|t| t.ends_with('Z') && t.contains('T')), "{time}");
    let wanted = serde_json::json!({
        "time": null, "protocol": "rest", "method": "POST", "path": "/v2/models/m/infer", "model": "m",
        "revision": "m-r1", "status": 200, "ms": 1.5, "bytes_in": 0, "bytes_out": 7, "request_id": "a \"b\"",
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
    });
    assert_eq!(line, wanted);
}
