//! Tells the namespace's gateways that the pod's model is proven, up to a second before the API server can: a kubelet
//! reports what it sees once a second. One that can't be told waits for the API server, so nothing here is ever fatal.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use http_body_util::Full;
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::View;
use crate::formats::Announcement;

/// Who this pod is, and whom to tell. From its environment: pods of older templates have none of it, and tell nobody.
#[derive(Clone, Debug)]
pub struct Announcer {
    /// A name with the addresses of all gateways of the namespace, and the port.
    pub gateways: String,
    pub pod: String,
    pub uid: String,
    pub ip: IpAddr,
}

/// A namespace has two or three.
const MOST_GATEWAYS: usize = 16;
/// With `PATIENCE` between them.
const RESOLVES: usize = 10;
/// Of one try.
const DEADLINE: Duration = Duration::from_millis(500);
/// Of all: by then the API server has said it.
const PATIENCE: Duration = Duration::from_secs(3);
/// Between two tries: the first is refused where a gateway has not yet seen the pod.
const AGAIN: Duration = Duration::from_millis(50);

/// Once, when the pod is first ready.
pub(super) async fn run(announcer: Announcer, mut views: watch::Receiver<View>) {
    // While the model is still loaded: a name takes some milliseconds.
    let gateways = resolve(&announcer.gateways).await;
    if views.wait_for(|view| view.state.ready).await.is_err() {
        return;
    }
    let until = Instant::now() + PATIENCE;
    let mut telling: JoinSet<()> = gateways
        .into_iter()
        .map(|gateway| {
            let announcer = announcer.clone();
            async move {
                let told = tell(&announcer, gateway, until).await;
                tracing::debug!(%gateway, told, "announced");
            }
        })
        .collect();
    while telling.join_next().await.is_some() {}
}

/// The namespace's first gateways may begin with this pod.
async fn resolve(name: &str) -> Vec<SocketAddr> {
    for _ in 0..RESOLVES {
        let found = timeout(PATIENCE, tokio::net::lookup_host(name)).await;
        match found {
            Ok(Ok(found)) => {
                let found: Vec<SocketAddr> = found.take(MOST_GATEWAYS).collect();
                if !found.is_empty() {
                    return found;
                }
            }
            Ok(Err(error)) => tracing::debug!(name, %error, "no address of a gateway"),
            Err(_) => tracing::debug!(name, "no address of a gateway in time"),
        }
        sleep(PATIENCE).await;
    }
    Vec::new()
}

/// False: it does not believe us, or does not answer.
async fn tell(announcer: &Announcer, gateway: SocketAddr, until: Instant) -> bool {
    while Instant::now() < until {
        if timeout(DEADLINE, post(announcer, gateway)).await.ok().flatten() == Some(true) {
            return true;
        }
        sleep(AGAIN).await;
    }
    false
}

async fn post(announcer: &Announcer, gateway: SocketAddr) -> Option<bool> {
    let said = Announcement::new(announcer.pod.clone(), announcer.uid.clone(), announcer.ip);
    let body = Bytes::from(serde_json::to_vec(&said).ok()?);
    let stream = TcpStream::connect(gateway).await.ok()?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
    let connection = tokio::spawn(connection);
    let request = Request::post(Announcement::PATH).header("host", "gateway").body(Full::new(body)).ok()?;
    let answer = sender.send_request(request).await;
    connection.abort();
    Some(answer.ok()?.status().is_success())
}
