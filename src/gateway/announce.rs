//! `POST /modelwright/v1/announce`: a pod that has proven its model says so itself, up to a second before the API server
//! does. What it says is believed only of a pod that the watch has shown, and from that pod's own address.
//!
//! A listener of its own, since the address of whoever asks matters, and so that nothing here takes a connection from
//! the operator's.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{Method, Request, Response, StatusCode};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::table::Table;
use crate::formats::Announcement;

/// At a time; more wait in the kernel's backlog.
const CONNECTIONS: usize = 64;
/// Of a connection, from its first byte to its answer.
const DEADLINE: Duration = Duration::from_secs(2);

/// Until the process ends.
pub async fn serve(listener: TcpListener, table: Arc<Table>) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, peer)) => {
                let table = table.clone();
                tokio::spawn(async move {
                    let _ = tokio::time::timeout(DEADLINE, answer(stream, peer.ip(), table)).await;
                    drop(slot);
                });
            }
            // Out of file descriptors, usually.
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn answer(stream: TcpStream, peer: IpAddr, table: Arc<Table>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let table = table.clone();
        async move {
            let announcement =
                read(request).await.filter(|said| said.ip.to_canonical() == peer.to_canonical());
            let believed =
                announcement.is_some_and(|said| table.announce(&said.pod, &said.uid, peer.to_canonical()));
            let mut response = Response::new(Empty::<Bytes>::new());
            // One answer to whatever is not believed: it tells nobody which pods there are.
            *response.status_mut() = if believed { StatusCode::NO_CONTENT } else { StatusCode::NOT_FOUND };
            Ok::<_, Infallible>(response)
        }
    });
    let mut connection = http1::Builder::new();
    connection.timer(TokioTimer::new()).keep_alive(false).max_buf_size(8 << 10);
    if let Err(error) = connection.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "connection ended");
    }
}

/// None: it is none.
async fn read(request: Request<Incoming>) -> Option<Announcement> {
    if request.method() != Method::POST || request.uri().path() != Announcement::PATH {
        return None;
    }
    let body = Limited::new(request.into_body(), Announcement::MOST_BYTES).collect().await.ok()?;
    serde_json::from_slice(&body.to_bytes()).ok()
}
