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
    let [one, other] = [(); 2].map(|()| identified(&mut HeaderMap::new()).unwrap());
    assert_ne!(one, other);
    let mut given = headers(&[("x-request-id", "mine")]);
    assert_eq!(identified(&mut given).unwrap(), "mine");
    forwarded(&mut given, true);
    assert_eq!(
        (&given["x-request-id"], &given["te"]),
        (&"mine".parse().unwrap(), &"trailers".parse().unwrap())
    );
}
