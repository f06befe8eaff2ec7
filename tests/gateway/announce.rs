//! Pods that say themselves that they are proven, before the API server does. Each has a loopback address of its own.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use http_body_util::Full;
use hyper::{Method, Request};
use modelwright::formats::Announcement;
use modelwright::gateway::{PodView, RouteView, announcements};
use tokio::net::{TcpListener, TcpSocket};

use crate::support::*;

const OURS: &str = "127.0.0.2";
const ANOTHERS: &str = "127.0.0.3";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

async fn pod_at(ip: &str) -> Pod {
    Pod::start_at("m", 1, SocketAddr::new(self::ip(ip), 0)).await
}

/// As the API server shows it until it has heard of its containers.
fn starting(pod: &Pod) -> PodView {
    let (revision, address) = pod.view.slots[0];
    PodView {
        slots: Vec::new(),
        ready: false,
        starting: Some((revision, address.port())),
        ..pod.view.clone()
    }
}

fn sole(generation: i64) -> RouteView {
    RouteView { sole: Some(1), ..route("m", generation, &[(1, 100)]) }
}

async fn listening(gateway: &Gateway) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(announcements(listener, gateway.table.clone()));
    address
}

/// From this address. The answer's status; it has no body.
async fn send(to: SocketAddr, from: &str, method: Method, path: &str, body: Vec<u8>) -> u16 {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(ip(from), 0)).unwrap();
    let mut client = Rest::over(socket.connect(to).await.unwrap()).await;
    let request = Request::builder().method(method).uri(path).header("host", "g");
    let got = within("an answer", client.send(request.body(Full::new(body.into())).unwrap())).await.unwrap();
    assert!(got.body.is_empty(), "{got:?}");
    got.status
}

async fn announce(to: SocketAddr, from: &str, said: &Announcement) -> u16 {
    send(to, from, Method::POST, Announcement::PATH, serde_json::to_vec(said).unwrap()).await
}

fn of(pod: &Pod, ip: &str) -> Announcement {
    Announcement::new(pod.view.name.clone(), pod.view.uid.clone(), self::ip(ip))
}

fn held(gateway: &Gateway) -> u64 {
    gateway.table.held().get("m").copied().unwrap_or(0)
}

#[tokio::test]
async fn a_request_that_waits_goes_to_the_pod_that_announces_itself_and_stays_there() {
    let gateway = gateway().await;
    let announced_at = listening(&gateway).await;
    let pod = pod_at(OURS).await;
    gateway.table.set_route(sole(1));
    gateway.table.set_pod(starting(&pod));
    let at = gateway.address;
    let waiting = tokio::spawn(async move { rest(at, "m", "/v2/models/m/infer", b"{}").await });
    until("it waits", || held(&gateway) == 1).await;
    assert_eq!(announce(announced_at, OURS, &of(&pod, OURS)).await, 204);
    assert_eq!(within("an answer", waiting).await.unwrap().text(), "r1");
    assert_eq!(announce(announced_at, OURS, &of(&pod, OURS)).await, 204, "it may say so again");

    // The API server follows: first with the address, then that it is ready.
    let (revision, address) = pod.view.slots[0];
    gateway.table.set_pod(PodView { slots: vec![(revision, address)], ..starting(&pod) });
    assert_eq!(rest(at, "m", "/v2/models/m/infer", b"{}").await.status, 200);
    gateway.table.set_pod(pod.view.clone());
    assert_eq!(rest(at, "m", "/v2/models/m/infer", b"{}").await.status, 200);
    assert_eq!(pod.arrived(), 3);
}

#[tokio::test]
async fn nobody_is_believed_but_a_known_pod_that_speaks_from_its_own_address() {
    let gateway = gateway().await;
    let announced_at = listening(&gateway).await;
    let pod = pod_at(OURS).await;
    gateway.table.set_route(sole(1));
    let said = of(&pod, OURS);
    assert_eq!(announce(announced_at, OURS, &said).await, 404, "no watch has shown it");
    gateway.table.set_pod(starting(&pod));
    let refused = [
        ("another's address", ANOTHERS, said.clone()),
        ("an address that it has not", OURS, Announcement { ip: ip(ANOTHERS), ..said.clone() }),
        ("another uid", OURS, Announcement { uid: "uid-of-another".into(), ..said.clone() }),
        ("another name", OURS, Announcement { pod: "m-another".into(), ..said.clone() }),
    ];
    for (what, from, said) in refused {
        assert_eq!(announce(announced_at, from, &said).await, 404, "{what}");
    }
    let whole = serde_json::to_vec(&said).unwrap();
    let padded = [&whole[..], &vec![b' '; Announcement::MOST_BYTES]].concat();
    for (method, path, body) in [
        (Method::POST, Announcement::PATH, padded),
        (Method::POST, Announcement::PATH, b"{}".to_vec()),
        (Method::PUT, Announcement::PATH, whole.clone()),
        (Method::POST, "/modelwright/v1/stream", whole.clone()),
        (Method::GET, "/metrics", Vec::new()),
    ] {
        assert_eq!(send(announced_at, OURS, method, path, body).await, 404, "{path}");
    }
    assert_eq!(get(gateway.address, "m", "/v2/health/ready").await.status, 503, "nothing was believed");
    assert_eq!(announce(announced_at, OURS, &said).await, 204);
    assert_eq!(get(gateway.address, "m", "/v2/health/ready").await.status, 200);
}

#[tokio::test]
async fn what_the_api_server_says_of_a_pod_replaces_what_the_pod_has_said() {
    let gateway = gateway().await;
    let (pod, other) = (pod_at(OURS).await, pod_at(ANOTHERS).await);
    let ready = || async { get(gateway.address, "m", "/v2/health/ready").await.status == 200 };
    let says = |address: &str| gateway.table.announce(&pod.view.name, &pod.view.uid, ip(address));
    gateway.table.set_route(sole(1));
    gateway.table.set_pod(starting(&pod));
    assert!(says(OURS));
    assert!(!says(ANOTHERS), "the first word stands");

    // Another address: the pod's own word is forgotten.
    gateway.table.set_pod(PodView { slots: other.view.slots.clone(), ..starting(&pod) });
    assert!(!ready().await);
    assert!(!says(OURS));
    gateway.table.set_pod(PodView { slots: other.view.slots.clone(), ..pod.view.clone() });
    assert_eq!(rest(gateway.address, "m", "/v2/models/m/infer", b"{}").await.status, 200);
    assert_eq!((pod.arrived(), other.arrived()), (0, 1));

    // Once it was ready, the API server alone says when it is again.
    gateway.table.set_pod(PodView { slots: other.view.slots.clone(), ..starting(&pod) });
    assert!(!says(ANOTHERS));
    assert!(!ready().await);

    // One of the same name is another.
    let next = PodView { uid: "uid-of-the-next".into(), ..starting(&pod) };
    gateway.table.set_pod(next.clone());
    assert!(!says(OURS));
    assert!(gateway.table.announce(&next.name, &next.uid, ip(OURS)));
    assert!(ready().await);

    // One that is told to go gets nothing.
    gateway.table.set_pod(PodView { starting: None, ..next.clone() });
    assert!(!ready().await);
    assert!(!gateway.table.announce(&next.name, &next.uid, ip(OURS)));
    gateway.table.remove_pod("m", &next.name);
    assert!(!gateway.table.announce(&next.name, &next.uid, ip(OURS)));
}

#[tokio::test]
async fn a_word_that_the_api_server_does_not_confirm_within_half_a_minute_is_forgotten() {
    let gateway = gateway().await;
    let pod = pod_at(OURS).await;
    let ready = || async { get(gateway.address, "m", "/v2/health/ready").await.status == 200 };
    gateway.table.set_route(sole(1));
    gateway.table.set_pod(starting(&pod));
    let says = || gateway.table.announce(&pod.view.name, &pod.view.uid, ip(OURS));
    assert!(says());
    // Since the process began, as everything here.
    gateway.table.sweep(Duration::from_secs(29));
    assert!(ready().await);
    gateway.table.sweep(Duration::from_secs(3600));
    assert!(!ready().await);
    assert!(says(), "it may say so again");
    assert!(ready().await);
}

#[tokio::test]
async fn while_a_revision_is_rolled_out_a_pod_has_to_be_ready_for_the_api_server() {
    let gateway = gateway().await;
    let pod = pod_at(OURS).await;
    let ready = || async { get(gateway.address, "m", "/v2/health/ready").await.status == 200 };
    gateway.table.set_route(route("m", 1, &[(1, 100)]));
    gateway.table.set_pod(starting(&pod));
    assert!(gateway.table.announce(&pod.view.name, &pod.view.uid, ip(OURS)));
    assert!(!ready().await);
    gateway.table.set_route(sole(2));
    assert!(ready().await, "what was said is remembered");
    gateway.table.set_route(RouteView { sole: Some(2), ..route("m", 3, &[(2, 100)]) });
    assert!(!ready().await);
    gateway.table.set_route(route("m", 4, &[(1, 100)]));
    assert!(!ready().await);
    gateway.table.set_pod(pod.view.clone());
    assert!(ready().await);
}
