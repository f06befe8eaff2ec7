//! Against a real S3 server, versitygw: `MODELWRIGHT_VERSITYGW` names its binary (`make test` builds and exports it).
//! Unset, the tests say so and pass: a plain `cargo test` has no Go. Set and broken, they fail.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use modelwright::formats::{LoadPhase, Pin, S3Settings, SourceRequest};
use modelwright::loader::{Folders, LoadError, fetch, resolve};
use object_store::ObjectStoreExt;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path as Key;

use crate::*;

/// versitygw over a temporary folder, and a proxy that counts.
struct Store {
    root: TempDir,
    address: SocketAddr,
    proxy: Server,
    gateway: Child,
}

impl Drop for Store {
    fn drop(&mut self) {
        let _ = self.gateway.kill();
        let _ = self.gateway.wait();
    }
}

impl Store {
    async fn start() -> Option<Self> {
        Self::start_with(&[]).await
    }

    async fn start_with(more: &[&str]) -> Option<Self> {
        let Some(binary) = std::env::var_os("MODELWRIGHT_VERSITYGW") else {
            eprintln!("MODELWRIGHT_VERSITYGW is not set: not tested against S3 (`make test` does)");
            return None;
        };
        let root = tempfile::tempdir().unwrap();
        for folder in ["objects/models", "versions"] {
            std::fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut gateway = Command::new(&binary)
            .args(["--access", "reader", "--secret", "hunter22", "--quiet", "--keep-alive"])
            .args(more)
            .args(["--port", &address.to_string(), "posix", "--versioning-dir"])
            .args([root.path().join("versions"), root.path().join("objects")])
            .stdout(Stdio::null())
            .spawn()
            .unwrap_or_else(|e| panic!("MODELWRIGHT_VERSITYGW={}: {e}", binary.display()));
        for _ in 0..2400 {
            if TcpStream::connect(address).is_ok() {
                let proxy = Server::in_front_of(address).await;
                write(&root.path().join("secret/AWS_ACCESS_KEY_ID"), "reader\n");
                write(&root.path().join("secret/AWS_SECRET_ACCESS_KEY"), "hunter22");
                return Some(Self { root, address, proxy, gateway });
            }
            assert!(gateway.try_wait().unwrap().is_none(), "versitygw has ended");
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("versitygw does not listen on {address}");
    }

    fn client(&self) -> AmazonS3 {
        env(self.root());
        AmazonS3Builder::new()
            .with_bucket_name("models")
            .with_endpoint(format!("http://{}", self.address))
            .with_allow_http(true)
            .with_access_key_id("reader")
            .with_secret_access_key("hunter22")
            .build()
            .unwrap()
    }

    async fn put(&self, key: &str, bytes: Vec<u8>) {
        self.client().put(&Key::from(key), bytes.into()).await.unwrap();
    }

    /// A file that the gateway serves as an object, without sending its zeros through it.
    fn place(&self, key: &str, content: &Sparse, etag: &str) {
        let path = self.root.path().join("objects/models").join(key);
        content.write(&path);
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(&path, "user.etag", etag.as_bytes(), flags).unwrap();
    }

    fn request(&self, key: &str) -> SourceRequest {
        SourceRequest {
            s3: Some(S3Settings { endpoint: Some(self.proxy.url("")), region: None }),
            secret_name: Some("store".into()),
            ..request(&format!("s3://models/{key}"))
        }
    }

    fn root(&self) -> &Path {
        self.root.path()
    }

    /// Every read carried a pin and was short; returns bytes and requests.
    fn cost(&self) -> (u64, usize) {
        let log = self.proxy.log();
        for asked in log.iter().filter(|asked| asked.method == "GET" && !asked.target.contains("list-type")) {
            let is_pinned = asked.header("if-match").is_some() || asked.target.contains("versionId=");
            assert!(is_pinned && asked.sent <= 8192, "{asked:?}");
        }
        (log.iter().map(|asked| asked.sent).sum(), log.len())
    }
}

/// 400 tensors, 2,120,000,000 bytes: protobuf's limit is 2,147,483,647.
const HUGE: (usize, i64) = (400, 1325);

#[tokio::test]
async fn two_gigabytes_inline_are_resolved_by_short_pinned_reads() {
    let Some(store) = Store::start().await else { return };
    let model = inline_model(HUGE.0, HUGE.1);
    assert!(model.len() > 2_120_000_000);
    store.place("huge/model.onnx", &model, "0123456789abcdef0123456789abcdef");
    let outcome = resolve(&store.request("huge/model.onnx"), &env(store.root())).await.unwrap();
    let (bytes, requests) = store.cost();
    println!("inline: {} bytes of model, {bytes} bytes read in {requests} requests", model.len());
    assert!(bytes < 5_000_000 && requests < 450, "{bytes} bytes, {requests} requests");
    assert_eq!((outcome.bytes, outcome.requests), (bytes, requests as u64));
    let source = outcome.resolved.source;
    assert!(source.immutable && source.files[0].size == model.len());
    assert!(
        matches!(&source.files[0].pin, Some(Pin::Etag(e)) if e.contains("0123456789abcdef")),
        "{source:?}"
    );
    let graph = outcome.resolved.graph;
    assert_eq!((graph.weight_bytes, graph.inputs.len(), graph.opsets["ai.onnx"]), (2_120_000_000, 1, 17));
}

#[tokio::test]
async fn two_gigabytes_beside_the_model_are_resolved_without_reading_them() {
    let Some(store) = Store::start().await else { return };
    let (model, weights) = with_external_data(HUGE.0, HUGE.1);
    store.place("huge/model.onnx", &Sparse::of(model), "aa");
    store.place("huge/weights.bin", &Sparse::zeros(weights), "bb");
    for key in ["huge/model.onnx", "huge", "huge/"] {
        let outcome = resolve(&store.request(key), &env(store.root())).await.unwrap();
        let files = &outcome.resolved.source.files;
        let named: Vec<_> = files.iter().map(|f| (f.path.as_str(), f.size, f.pin.is_some())).collect();
        assert_eq!(named[1], ("weights.bin", weights, true));
        assert_eq!(outcome.resolved.graph.weight_bytes, weights);
        assert!(outcome.bytes < 100_000, "{key}: {} bytes", outcome.bytes);
    }
    let (bytes, requests) = store.cost();
    println!("external: three resolves read {bytes} bytes in {requests} requests");

    store.place("huge/weights.bin", &Sparse::zeros(weights - 1), "bb");
    let error = resolve(&store.request("huge"), &env(store.root())).await.unwrap_err();
    assert_eq!(error.reason(), "ModelInvalid");
    assert!(error.to_string().contains("tensor \"layer.399.weight\" ends at byte"), "{error}");
    std::fs::remove_file(store.root().join("objects/models/huge/weights.bin")).unwrap();
    let error = resolve(&store.request("huge"), &env(store.root())).await.unwrap_err();
    assert_eq!(
        error,
        LoadError::Invalid(
            "external data file weights.bin named by tensor \"layer.0.weight\" is missing beside the model file \
             s3://models/huge/model.onnx"
                .into()
        )
    );
}

#[tokio::test]
async fn a_version_is_fetched_even_after_it_was_overwritten() {
    let Some(store) = Store::start().await else { return };
    // What PutBucketVersioning writes (versitygw, backend/posix); object_store has no call for it.
    let bucket = store.root().join("objects/models");
    rustix::fs::setxattr(&bucket, "user.versioning", &[1], rustix::fs::XattrFlags::empty()).unwrap();
    let (model, weights) = with_external_data(2, 1);
    store.put("v/model.onnx", model.clone()).await;
    store.put("v/weights.bin", vec![7; weights as usize]).await;
    let outcome = resolve(&store.request("v/model.onnx"), &env(store.root())).await.unwrap();
    store.cost();
    let source = outcome.resolved.source;
    assert!(matches!(source.files[0].pin, Some(Pin::VersionId(_))), "{source:?}");
    assert!(matches!(source.files[1].pin, Some(Pin::VersionId(_))), "{source:?}");

    store.put("v/model.onnx", b"other".to_vec()).await;
    store.put("v/weights.bin", b"other".to_vec()).await;
    let folders =
        Folders { assignment: store.root().join("assignment"), models: store.root().join("models") };
    assign(&folders.assignment, &[("fraud-r1", &source)]);
    let models = folders.models.clone();
    let agent = tokio::spawn(fetch(folders, env(store.root())));
    let status = status(&models, "fraud-r1", |s| s.phase == LoadPhase::Fetched).await;
    agent.abort();
    assert_eq!(status.model_file.as_deref(), Some("model.onnx"));
    assert_eq!(std::fs::read(models.join("revisions/fraud-r1/model.onnx")).unwrap(), model);
    assert_eq!(
        std::fs::read(models.join("revisions/fraud-r1/weights.bin")).unwrap(),
        vec![7; weights as usize]
    );
}

#[tokio::test]
async fn an_overwritten_object_without_versions_is_source_changed() {
    let Some(store) = Store::start().await else { return };
    store.put("m.onnx", small()).await;
    let source = resolve(&store.request("m.onnx"), &env(store.root())).await.unwrap().resolved.source;
    assert!(matches!(source.files[0].pin, Some(Pin::Etag(_))), "{source:?}");
    let mut other = small();
    other[30] ^= 1;
    store.put("m.onnx", other).await;

    let folders =
        Folders { assignment: store.root().join("assignment"), models: store.root().join("models") };
    assign(&folders.assignment, &[("fraud-r1", &source)]);
    let models = folders.models.clone();
    let agent = tokio::spawn(fetch(folders, env(store.root())));
    let failed = status(&models, "fraud-r1", |s| s.phase == LoadPhase::Failed).await;
    assert_eq!(failed.reason.as_deref(), Some("SourceChanged"));
    assert!(failed.message.as_deref().unwrap().contains("modelwright.dev/resolve-at"), "{failed:?}");
    // The same bytes again have the same ETag: it recovers alone.
    store.put("m.onnx", small()).await;
    status(&models, "fraud-r1", |s| s.phase == LoadPhase::Fetched).await;
    agent.abort();
}

#[tokio::test]
async fn what_is_wrong_is_said() {
    let Some(store) = Store::start().await else { return };
    store.put("m.onnx", fixture::rich()).await;
    store.put("two/a.onnx", fixture::rich()).await;
    store.put("two/b.onnx", fixture::rich()).await;
    let env = env(store.root());
    let no_bucket = SourceRequest { uri: "s3://absent/m.onnx".into(), ..store.request("") };
    let unsigned = SourceRequest { secret_name: None, ..store.request("m.onnx") };
    let plain = SourceRequest { insecure_http: false, ..store.request("m.onnx") };
    let gone = S3Settings { endpoint: Some("http://127.0.0.1:9".into()), region: None };
    let down = SourceRequest { s3: Some(gone), ..store.request("m.onnx") };
    for (request, reason, text) in [
        (store.request("absent.onnx"), "SourceNotFound", "s3://models/absent.onnx: there is no such object"),
        (store.request("absent"), "SourceNotFound", "s3://models/absent: there is no such object"),
        (no_bucket, "SourceNotFound", "s3://absent/m.onnx: there is no such object"),
        (
            store.request("two"),
            "ModelInvalid",
            "2 .onnx files stand in this folder (a.onnx, b.onnx, …): name one",
        ),
        (unsigned, "SourceForbidden", "a read without credentials; name a Secret"),
        (plain, "SourceForbidden", "is plain HTTP"),
        (down, "SourceUnavailable", "Connection refused"),
    ] {
        let error = resolve(&request, &env).await.unwrap_err();
        assert_eq!(error.reason(), reason, "{error}");
        assert!(error.to_string().contains(text), "{error}");
    }

    write(&env.secret.join("AWS_SECRET_ACCESS_KEY"), "wrong-hunter");
    let error = resolve(&store.request("m.onnx"), &env).await.unwrap_err();
    assert_eq!(error.reason(), "SourceForbidden");
    assert!(error.to_string().contains("check the Secret of model.secretRef"), "{error}");
    assert!(!error.to_string().contains("hunter") && !error.to_string().contains("reader"), "{error}");

    std::fs::remove_file(env.secret.join("AWS_SECRET_ACCESS_KEY")).unwrap();
    let error = resolve(&store.request("m.onnx"), &env).await.unwrap_err();
    let text = "Secret store (model.secretRef) has no key AWS_SECRET_ACCESS_KEY: add it";
    assert_eq!(error, LoadError::Secret(text.into()));
    std::fs::remove_file(env.secret.join("AWS_ACCESS_KEY_ID")).unwrap();
    let error = resolve(&store.request("m.onnx"), &env).await.unwrap_err();
    assert!(error.to_string().starts_with("Secret store (model.secretRef) does not exist"), "{error}");
}

/// A CA of its own, and a certificate for 127.0.0.1: PEM of CA, certificate, key.
fn private_ca() -> (String, String, String) {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &ca).unwrap();
    (ca.pem(), certificate.pem(), key.serialize_pem())
}

#[tokio::test]
async fn a_private_ca_is_trusted_when_it_is_named() {
    let (ca, certificate, key) = private_ca();
    let files = temp();
    let path = |name: &str| files.path().join(name).to_str().unwrap().to_owned();
    write(Path::new(&path("tls.crt")), certificate);
    write(Path::new(&path("tls.key")), key);
    let tls = ["--cert", &path("tls.crt"), "--key", &path("tls.key")];
    let Some(store) = Store::start_with(&tls).await else { return };
    store.place("m.onnx", &Sparse::of(small()), "aa");
    let endpoint = Some(format!("https://{}", store.address));
    let bare = SourceRequest {
        s3: Some(S3Settings { endpoint, region: None }),
        insecure_http: false,
        ..store.request("m.onnx")
    };
    let env = env(store.root());
    refused(&bare, &env, "SourceUnavailable", "signed by an unknown CA; name it in model.caBundleRef").await;
    let named = SourceRequest { ca_bundle_name: Some("corp-ca".into()), ..bare };
    refused(&named, &env, "SecretNotFound", "ConfigMap corp-ca (model.caBundleRef) does not exist").await;
    write(&env.ca.join("ca.crt"), ca);
    assert!(resolve(&named, &env).await.unwrap().resolved.source.immutable);
}
