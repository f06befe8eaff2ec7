use super::*;

#[test]
fn the_client_s_timeout_is_read_in_every_unit() {
    for (text, wanted) in [
        ("2H", Some(Duration::from_secs(7200))),
        ("3M", Some(Duration::from_secs(180))),
        ("5S", Some(Duration::from_secs(5))),
        ("99999999m", Some(Duration::from_millis(99_999_999))),
        ("250m", Some(Duration::from_millis(250))),
        ("7u", Some(Duration::from_micros(7))),
        ("9n", Some(Duration::from_nanos(9))),
        ("", None),
        ("5", None),
        ("S", None),
        ("-5S", None),
        ("123456789S", None),
        ("5x", None),
    ] {
        let headers = HeaderMap::from_iter([("grpc-timeout".parse().unwrap(), text.parse().unwrap())]);
        assert_eq!(grpc_timeout(&headers), wanted, "{text:?}");
    }
}
