use super::*;

fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    pairs.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect()
}

#[test]
fn what_a_connection_names_stays_with_it() {
    let mut given = headers(&[
        ("connection", "keep-alive, X-Mine ,content-type"),
        ("x-mine", "1"),
        ("x-other", "1"),
        ("content-type", "a/b"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "websocket"),
        ("proxy-authorization", "secret"),
    ]);
    strip(&mut given);
    let mut left: Vec<&str> = given.keys().map(|name| name.as_str()).collect();
    left.sort_unstable();
    assert_eq!(left, ["content-type", "x-other"]);
}

#[test]
fn every_request_has_an_id_of_its_own() {
    let mut one = HeaderMap::new();
    forwarded(&mut one, false);
    let mut other = HeaderMap::new();
    forwarded(&mut other, true);
    assert_ne!(one["x-request-id"], other["x-request-id"]);
    assert_eq!(other["te"], "trailers");
    let mut given = headers(&[("x-request-id", "mine")]);
    forwarded(&mut given, false);
    assert_eq!(given["x-request-id"], "mine");
}
