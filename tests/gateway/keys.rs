//! Who asks for a model that wants an API key.

use axum::http::Request;
use bytes::Bytes;
use http_body_util::Full;
use modelwright::api::{Authentication, RouteLimits};
use modelwright::gateway::{Keys, RouteView, follow};

use crate::support::*;

const ALICE: &str = "alice-alice-alice-alice";
const BOB: &str = "bob-bob-bob-bob-bob-bob";

fn guarded(name: &str) -> RouteView {
    let limits = RouteLimits { authentication: Authentication::ApiKey, ..RouteLimits::default() };
    RouteView { limits, ..route(name, 1, &[(1, 100)]) }
}

/// A gateway of the guarded models `fraud` and `churn`, and of `open`.
async fn guard(keys: &[(&str, &str)]) -> (Gateway, Pod, Pod) {
    let gateway = gateway().await;
    let entries = keys.iter().map(|(name, key)| (name.to_string(), key.as_bytes().to_vec()));
    gateway.table.keys.store(Keys::of(entries).into());
    let (fraud, open) = (Pod::start("fraud", 1).await, Pod::start("open", 1).await);
    gateway.table.set_route(guarded("fraud"));
    gateway.table.set_route(guarded("churn"));
    gateway.table.set_route(route("open", 1, &[(1, 100)]));
    gateway.table.set_pod(fraud.view.clone());
    gateway.table.set_pod(open.view.clone());
    (gateway, fraud, open)
}

fn with(mut request: Request<Full<Bytes>>, header: &'static str, value: &str) -> Request<Full<Bytes>> {
    request.headers_mut().insert(header, value.parse().unwrap());
    request
}

async fn asks(gateway: &Gateway, path: &str, header: &'static str, value: &str) -> Got {
    let request = with(post("x", path, b"{}"), header, value);
    within(path, Rest::connect(gateway.address).await.send(request)).await.unwrap()
}

#[tokio::test]
async fn over_rest_a_key_opens_its_models_and_goes_no_further_than_the_gateway() {
    let (gateway, fraud, open) = guard(&[("alice", ALICE), ("bob.churn", BOB)]).await;
    let bearer = format!("Bearer {ALICE}");
    for (header, value) in [("authorization", bearer.as_str()), ("x-api-key", ALICE)] {
        assert_eq!(asks(&gateway, "/v2/models/fraud/infer", header, value).await.status, 200, "{header}");
        assert_eq!(asks(&gateway, "/v2/models/open/infer", header, value).await.status, 200, "{header}");
    }
    for seen in fraud.seen().iter().chain(&open.seen()) {
        assert!(!seen.headers.contains_key("authorization") && !seen.headers.contains_key("x-api-key"));
        assert!(!format!("{seen:?}").contains(ALICE));
    }

    let none = rest(gateway.address, "x", "/v2/models/fraud/infer", b"{}").await;
    assert_eq!(none.status, 401);
    assert_eq!(none.headers["www-authenticate"], "Bearer realm=\"modelwright\"");
    assert!(none.text().contains("authorization: Bearer KEY"), "{}", none.text());
    let wrong =
        asks(&gateway, "/v2/models/fraud/infer", "authorization", "Bearer who-is-this-who-is-this").await;
    assert_eq!((wrong.status, wrong.text().as_str()), (401, r#"{"error":"this API key is not known"}"#));
    let other = asks(&gateway, "/v2/models/fraud/infer", "x-api-key", BOB).await;
    assert_eq!(other.status, 403);
    assert_eq!(other.text(), r#"{"error":"this API key is not for the model \"fraud\""}"#);
    assert!(!other.headers.contains_key("www-authenticate"));
    assert_eq!(fraud.arrived(), 2, "none of them");
    assert_eq!(
        rest(gateway.address, "x", "/v2/models/open/infer", b"{}").await.status,
        200,
        "it wants no key"
    );

    let metrics = get(gateway.admin, "g", "/metrics").await.text();
    for (reason, count) in [("unauthenticated", 2), ("forbidden", 1)] {
        let line = format!(r#"refused_total{{deployment="fraud",reason="{reason}"}} {count}"#);
        assert!(metrics.contains(&line), "{metrics}");
    }
}

#[tokio::test]
async fn over_grpc_a_key_comes_in_the_metadata_whether_host_or_message_names_the_model() {
    let (gateway, fraud, _) = guard(&[("alice", ALICE), ("bob.churn", BOB)]).await;
    let mut grpc = Grpc::connect(gateway.address).await;
    let bearer = format!("Bearer {ALICE}");
    for host in ["fraud", "10.0.0.1:9000"] {
        for (header, value, status) in [
            ("authorization", bearer.as_str(), "0"),
            ("x-api-key", ALICE, "0"),
            ("x-api-key", BOB, "7"),
            ("x-api-key", "who-is-this-who-is-this", "16"),
            ("x-other", "", "16"),
        ] {
            let request = with(call(host, INFER, framed(&infer("fraud", ""))), header, value);
            let got = within("an answer", grpc.send(request)).await.unwrap();
            assert_eq!(got.grpc_status(), status, "{host} {header} {value}: {got:?}");
        }
    }
    assert_eq!(fraud.arrived(), 4);
    assert!(fraud.seen().iter().all(|seen| !format!("{seen:?}").contains(ALICE)));
    assert_eq!(grpc.call("x", INFER, &infer("open", "")).await.grpc_status(), "0");
}

#[tokio::test]
async fn health_needs_no_key_and_all_else_that_is_about_a_model_does() {
    let (gateway, ..) = guard(&[("alice.fraud", ALICE)]).await;
    let at = gateway.address;
    for path in ["/", "/healthz", "/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/fraud/ready"] {
        assert_eq!(get(at, "x", path).await.status, 200, "{path}");
    }
    assert_eq!(get(at, "fraud", "/v2/health/ready").await.status, 200);
    for (host, path) in [
        ("x", "/v2/models/fraud"),
        ("x", "/v2/models/fraud/config"),
        ("x", "/v2/models/fraud/stats"),
        ("x", "/v2/models/fraud/versions/1"),
        ("fraud", "/v2"),
        ("fraud", "/v2/models/stats"),
    ] {
        assert_eq!(get(at, host, path).await.status, 401, "{host} {path}");
    }
    let service = "/inference.GRPCInferenceService/";
    let mut grpc = Grpc::connect(at).await;
    for method in ["ServerLive", "ServerReady", "ModelReady"] {
        let got = grpc.call("fraud", &format!("{service}{method}"), &infer("fraud", "")).await;
        assert_eq!(got.grpc_status(), "0", "{method}");
    }
    assert_eq!(grpc.call("fraud", "/grpc.health.v1.Health/Check", b"").await.grpc_status(), "0");
    for method in ["ServerMetadata", "ModelMetadata", "ModelConfig", "ModelStatistics", "RepositoryIndex"] {
        let got = grpc.call("fraud", &format!("{service}{method}"), &infer("fraud", "")).await;
        assert_eq!(got.grpc_status(), "16", "{method}");
    }

    // The index has what its reader may use.
    let index = rest(at, "x", "/v2/repository/index", b"").await.text();
    assert_eq!(index, r#"[{"name":"open","reason":"","state":"READY"}]"#);
    let index = asks(&gateway, "/v2/repository/index", "x-api-key", ALICE).await.text();
    assert!(index.contains("fraud") && index.contains("open") && !index.contains("churn"), "{index}");
    let index = grpc.call("x", &format!("{service}RepositoryIndex"), b"").await.text();
    assert!(index.contains("open") && !index.contains("fraud"), "{index}");
}

#[tokio::test]
async fn keys_follow_the_mounted_secret_and_without_one_nobody_is_let_in() {
    let (gateway, ..) = guard(&[]).await;
    let secret = Mounted::empty();
    let (table, folder) = (gateway.table.clone(), secret.folder.path().to_path_buf());
    tokio::spawn(follow(folder, move |folder| table.keys.store(Keys::read(folder).into())));
    let status = async |key: &str| asks(&gateway, "/v2/models/fraud/infer", "x-api-key", key).await;
    let nobody = status(ALICE).await;
    assert_eq!(nobody.status, 401);
    assert!(
        nobody.text().contains("the Secret modelwright-api-keys of its namespace is missing"),
        "{nobody:?}"
    );

    let becomes = async |key: &str, wanted: u16| {
        within("the keys are read again", async {
            while status(key).await.status != wanted {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        })
        .await;
    };
    secret.exchange(&[("alice", ALICE)]);
    becomes(ALICE, 200).await;
    secret.exchange(&[("bob.fraud", BOB)]);
    becomes(BOB, 200).await;
    assert_eq!(status(ALICE).await.status, 401);
    secret.exchange(&[]);
    becomes(BOB, 401).await;
}
