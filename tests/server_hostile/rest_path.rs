//! Paths, methods and media types.

use crate::raw::{INFER, exchange, post};
use crate::table::{Target, refuses};

const GOOD: &str = r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"data":[1,2]}]}"#;

fn request(method: &str, path: &str) -> Vec<u8> {
    format!("{method} {path} HTTP/1.1\r\nhost: m\r\ncontent-length: {}\r\n\r\n{GOOD}", GOOD.len())
        .into_bytes()
}

#[tokio::test]
async fn names_that_are_no_names_are_refused() {
    let target = Target::new(&[]).await;
    let infer = |name: &str| request("POST", &format!("/v2/models/{name}/infer"));
    let no = "not a model name";
    let cases: Vec<(&str, Vec<u8>, u16, &str)> = vec![
        ("the parent folder", infer(".."), 400, no),
        ("the parent folder, escaped", infer("%2e%2e"), 400, no),
        ("a path, escaped", infer("%2e%2e%2f%2e%2e%2fetc%2fpasswd"), 400, no),
        ("a path", infer("../x"), 404, "unknown path"),
        ("a backslash", infer("..%5cx"), 400, no),
        ("a hidden file", infer(".m"), 400, no),
        ("a blank", infer("%20"), 400, no),
        ("a name with a blank", infer("m%20"), 400, no),
        ("nothing", infer(""), 400, no),
        ("NUL", infer("m%00"), 400, no),
        ("a line break", infer("m%0d%0ax"), 400, no),
        ("no UTF-8", infer("%ff"), 400, "not a model name"),
        ("a bad escape", infer("%zz"), 400, no),
        ("an umlaut", infer("m%C3%BC"), 400, no),
        ("markup", infer("%3Cscript%3E"), 400, no),
        ("254 letters", infer(&"m".repeat(254)), 400, no),
        ("4 KiB of letters", infer(&"m".repeat(4096)), 400, no),
        ("60 kB of letters", infer(&"m".repeat(60_000)), 400, no),
        ("another model", infer("other"), 404, "unknown model \"other\": this server has \"m\""),
        ("a name in capitals", infer("M"), 404, "unknown model \"M\""),
        (
            "another version",
            request("POST", "/v2/models/m/versions/2/infer"),
            404,
            "model \"m\" has no version \"2\"",
        ),
        (
            "a version that is a path",
            request("POST", "/v2/models/m/versions/..%2f1/infer"),
            404,
            "has no version",
        ),
        (
            "4 KiB of version",
            request("POST", &format!("/v2/models/m/versions/{}/infer", "1".repeat(4096))),
            404,
            "has no version",
        ),
    ];
    refuses(&target, cases, async |port, request| exchange(port, request).await).await;
}

#[tokio::test]
async fn what_would_change_the_server_does_not_exist() {
    let target = Target::new(&[]).await;
    let cases: Vec<(&str, Vec<u8>, u16, &str)> = vec![
        ("load a model", request("POST", "/v2/repository/models/m/load"), 404, ""),
        ("unload the model", request("POST", "/v2/repository/models/m/unload"), 404, ""),
        ("system shared memory", request("POST", "/v2/systemsharedmemory/region/r/register"), 404, ""),
        ("its status", request("GET", "/v2/systemsharedmemory/status"), 404, ""),
        ("CUDA shared memory", request("POST", "/v2/cudasharedmemory/region/r/register"), 404, ""),
        ("trace settings", request("POST", "/v2/trace/setting"), 404, ""),
        ("the model's trace settings", request("POST", "/v2/models/m/trace/setting"), 404, ""),
        ("log settings", request("POST", "/v2/logging"), 404, ""),
        ("generate", request("POST", "/v2/models/m/generate"), 404, ""),
        ("SageMaker's ping", request("GET", "/ping"), 404, ""),
        ("SageMaker's models", request("POST", "/models"), 404, ""),
        ("a debugger", request("GET", "/debug/pprof/heap"), 404, ""),
        ("a file", request("GET", "/../../../../etc/passwd"), 404, ""),
        ("a doubled slash", request("POST", "//v2/models/m/infer"), 404, ""),
        ("a trailing slash", request("POST", "/v2/models/m/infer/"), 404, ""),
        ("a path in capitals", request("POST", "/V2/models/m/infer"), 404, ""),
        ("the supervisor's state", request("GET", "/modelwright/v1/state"), 404, ""),
    ];
    refuses(&target, cases, async |port, request| exchange(port, request).await).await;
}

#[tokio::test]
async fn other_methods_are_refused() {
    let target = Target::new(&[]).await;
    let no = "does not take this method";
    let mut cases: Vec<(&str, Vec<u8>, u16, &str)> = vec![
        ("a POST to metadata", request("POST", "/v2/models/m"), 405, no),
        ("a POST to health", request("POST", "/v2/health/ready"), 405, no),
        ("a DELETE of the model", request("DELETE", "/v2/models/m"), 405, no),
        ("HTTP/2's preface", b"PRI * HTTP/1.1\r\nhost: m\r\n\r\n".to_vec(), 404, ""),
        ("a lower-case method", request("post", INFER), 405, no),
    ];
    for method in ["GET", "PUT", "DELETE", "PATCH", "TRACE", "OPTIONS", "BREW", "PROPFIND"] {
        cases.push((method, request(method, INFER), 405, no));
    }
    refuses(&target, cases, async |port, request| exchange(port, request).await).await;
}

#[tokio::test]
async fn other_media_are_refused() {
    let target = Target::new(&[]).await;
    let kind = |kind: &str| post(&format!("content-type: {kind}\r\n"), GOOD);
    let coded = |coding: &str| post(&format!("content-encoding: {coding}\r\n"), GOOD);
    let long = "a".repeat(30_000);
    let cases: Vec<(&str, Vec<u8>, u16, &str)> = vec![
        ("HTML", kind("text/html"), 415, "content-type text/html is not supported"),
        (
            "a form with files",
            kind("multipart/form-data; boundary=x"),
            415,
            "content-type multipart/form-data",
        ),
        ("a picture", kind("image/png"), 415, "content-type image/png is not supported"),
        ("protobuf", kind("application/x-protobuf"), 415, "is not supported"),
        ("a kind of 30 kB", kind(&long), 415, "content-type aaa"),
        ("a kind that is no text", kind("\u{fc}"), 415, "is not supported"),
        ("brotli", coded("br"), 415, "content-encoding br is not supported"),
        ("an unknown coding", coded("rot13"), 415, "content-encoding rot13 is not supported"),
        ("a coding of 30 kB", coded(&long), 415, "content-encoding aaa"),
    ];
    refuses(&target, cases, async |port, request| exchange(port, request).await).await;
}
