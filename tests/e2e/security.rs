//! Keys and a certificate, which the kubelet gives to the gateways from Secrets.

use k8s_openapi::api::core::v1::Secret;
use serde_json::json;

use crate::support::{RELU, in_namespace, question, relu, wait};

#[tokio::test]
async fn gateways_want_keys_and_speak_tls_where_there_are_secrets() {
    in_namespace("security", async |space| {
        let [mine, others] = ["a key of every model", "a key of another model"];
        space
            .create::<Secret>(&json!({
                "metadata": { "name": "modelwright-api-keys" },
                "stringData": { "checkout": mine, "batch.other": others },
            }))
            .await;
        let host = format!("model.{}.svc", space.name);
        let certified = rcgen::generate_simple_self_signed(vec![host.clone()]).expect("a certificate");
        space
            .create::<Secret>(&json!({
                "metadata": { "name": "modelwright-gateway-tls" }, "type": "kubernetes.io/tls",
                "stringData": {
                    "tls.crt": certified.cert.pem(), "tls.key": certified.signing_key.serialize_pem(),
                },
            }))
            .await;
        let uri = space.file("model.onnx", &relu()).await;
        let mut spec = space.spec(&uri);
        spec["security"] = json!({ "authentication": "APIKey" });
        space.apply("model", &spec).await;
        space.until_ready("model").await;

        let body = question().to_string();
        let ask = async |scheme: &str, key: Option<&str>| {
            let url = format!("{scheme}://{host}/v2/models/model/infer");
            let mut headers = vec![("Content-Type".to_string(), "application/json".to_string())];
            headers.extend(key.map(|key| ("Authorization".to_string(), format!("Bearer {key}"))));
            wait("answer", async || {
                let answer = space.helper.call("POST", &url, &headers, body.as_bytes()).await;
                if answer.status == 0 { Err(answer.error) } else { Ok(answer) }
            })
            .await
        };
        for scheme in ["http", "https"] {
            let none = ask(scheme, None).await;
            let challenge = none.headers.get("www-authenticate").map(String::as_str);
            assert_eq!((none.status, challenge), (401, Some("Bearer realm=\"modelwright\"")), "{scheme}");
            assert_eq!(ask(scheme, Some("a key that nobody has")).await.status, 401, "{scheme}");
            assert_eq!(ask(scheme, Some(others)).await.status, 403, "{scheme}");
            let known = ask(scheme, Some(mine)).await;
            assert_eq!(known.status, 200, "{scheme}: {}", known.text());
            let answer: serde_json::Value = serde_json::from_slice(&known.body()).expect("JSON");
            assert_eq!(answer["outputs"][0]["data"], json!(RELU), "{scheme}");
        }
        let ready = format!("https://{host}/v2/models/model/ready");
        assert_eq!(space.helper.call("GET", &ready, &[], &[]).await.status, 200, "probes have no key");
    })
    .await;
}
