//! A client of an S3 store, as much as tests need: signed PUT and DELETE (AWS Signature Version 4).

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{Helper, wait};

#[derive(Clone)]
pub struct Credentials {
    pub id: String,
    pub secret: String,
}

impl Credentials {
    pub async fn read(client: &Client, namespace: &str, name: &str) -> Self {
        let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
        let secret = secrets.get(name).await.expect("the store's Secret: run make cluster-s3");
        let data = secret.data.unwrap_or_default();
        let key = |name: &str| String::from_utf8(data[name].0.clone()).expect("text");
        Self { id: key("AWS_ACCESS_KEY_ID"), secret: key("AWS_SECRET_ACCESS_KEY") }
    }

    /// As `model.secretRef` wants it.
    pub fn secret(&self, name: &str) -> Value {
        let data = json!({ "AWS_ACCESS_KEY_ID": self.id, "AWS_SECRET_ACCESS_KEY": self.secret });
        json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name }, "stringData": data })
    }
}

pub struct S3 {
    helper: Helper,
    pub endpoint: String,
    pub credentials: Credentials,
}

impl S3 {
    /// The store that `make cluster-s3` has started.
    pub async fn shared(client: &Client, helper: &Helper) -> Self {
        let credentials = Credentials::read(client, "s3", "root").await;
        Self::at("http://versitygw.s3.svc.cluster.local:7070", helper, credentials)
    }

    pub fn at(endpoint: &str, helper: &Helper, credentials: Credentials) -> Self {
        Self { helper: helper.clone(), endpoint: endpoint.into(), credentials }
    }

    pub async fn create_bucket(&self, bucket: &str) {
        self.send("PUT", &format!("/{bucket}"), "", b"").await;
    }

    /// From now on the store keeps every version of an object.
    pub async fn keep_versions(&self, bucket: &str) {
        let body = "<VersioningConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
                    <Status>Enabled</Status></VersioningConfiguration>";
        self.send("PUT", &format!("/{bucket}"), "versioning=", body.as_bytes()).await;
    }

    pub async fn put(&self, bucket: &str, key: &str, bytes: &[u8]) {
        self.send("PUT", &format!("/{bucket}/{key}"), "", bytes).await;
    }

    async fn send(&self, method: &str, path: &str, query: &str, body: &[u8]) {
        let url = format!("{}{path}{}{query}", self.endpoint, if query.is_empty() { "" } else { "?" });
        let answer = wait("answer of the store", async || {
            let headers = self.sign(method, path, query, body);
            let answer = self.helper.call(method, &url, &headers, body).await;
            // A store that has just started: kube-proxy applies a change up to a second late.
            if answer.status == 0 { Err(answer.error) } else { Ok(answer) }
        })
        .await;
        // A bucket that is there already: the answer to the first attempt did not come through.
        let well = (200..300).contains(&answer.status) || answer.text().contains("BucketAlreadyOwnedByYou");
        assert!(well, "{method} {url}: {} {}", answer.error, answer.text());
    }

    /// docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
    fn sign(&self, method: &str, path: &str, query: &str, body: &[u8]) -> Vec<(String, String)> {
        let host = self.endpoint.split_once("://").expect("a URL").1;
        let time = Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
        let (day, hash) = (&time[..8], hex(&Sha256::digest(body)));
        let canonical = format!(
            "{method}\n{path}\n{query}\nhost:{host}\nx-amz-content-sha256:{hash}\nx-amz-date:{time}\n\n\
             host;x-amz-content-sha256;x-amz-date\n{hash}"
        );
        let scope = format!("{day}/us-east-1/s3/aws4_request");
        let text = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", hex(&Sha256::digest(&canonical)));
        let first = format!("AWS4{}", self.credentials.secret).into_bytes();
        let key = [day, "us-east-1", "s3", "aws4_request"].iter().fold(first, |key, part| hmac(&key, part));
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders=host;x-amz-content-sha256;x-amz-date, Signature={}",
            self.credentials.id,
            hex(&hmac(&key, &text))
        );
        let header = |name: &str, value: String| (name.to_string(), value);
        vec![
            header("Authorization", authorization),
            header("x-amz-content-sha256", hash),
            header("x-amz-date", time),
        ]
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// RFC 2104, for keys of at most a block.
fn hmac(key: &[u8], text: &str) -> Vec<u8> {
    assert!(key.len() <= 64, "a longer key would have to be hashed first");
    let pad = |byte: u8| (0..64).map(move |i| key.get(i).unwrap_or(&0) ^ byte).collect::<Vec<u8>>();
    let inner = Sha256::digest([pad(0x36), text.as_bytes().to_vec()].concat());
    Sha256::digest([pad(0x5c), inner.to_vec()].concat()).to_vec()
}
