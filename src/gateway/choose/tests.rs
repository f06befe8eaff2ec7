use super::*;
use crate::protocol::Kind;

#[test]
fn a_hosts_first_label_is_its_model() {
    for (host, label) in [
        ("fraud", "fraud"),
        ("fraud:80", "fraud"),
        ("fraud.payments", "fraud"),
        ("fraud.payments.svc.cluster.local:9000", "fraud"),
        ("", ""),
        (".x", ""),
        ("[::1]:80", "["),
        ("10.0.0.1", "10"),
    ] {
        assert_eq!(first_label(host), label, "{host}");
    }
}

#[test]
fn paths_name_models_and_versions() {
    let named = |name, version, ready| Some(Named { name, version, ready });
    for (path, found) in [
        ("/v2/models/m", named("m", None, false)),
        ("/v2/models/m/", named("m", None, false)),
        ("/v2/models/m/infer", named("m", None, false)),
        ("/v2/models/m/ready", named("m", None, true)),
        ("/v2/models/m/versions/7", named("m", Some("7"), false)),
        ("/v2/models/m/versions/7/ready", named("m", Some("7"), true)),
        ("/v2/models/m/versions/7/infer", named("m", Some("7"), false)),
        ("/v2/models/m/versions", named("m", None, false)),
        ("/v2/models/stats/infer", named("stats", None, false)),
        ("/v2/models/stats", None),
        ("/v2/models/", None),
        ("/v2/models", None),
        ("/v2/models//infer", None),
        ("/v2", None),
        ("/", None),
    ] {
        assert_eq!(in_path(path), found, "{path}");
    }
}

#[test]
fn versions_are_numbers_of_revisions() {
    assert_eq!(revision(""), Ok(None));
    assert_eq!(revision("7"), Ok(Some(7)));
    for version in ["0", "-1", "r7", "latest", "7.0", "99999999999999999999", " 7"] {
        assert_eq!(revision(version).unwrap_err().kind, Kind::NotFound, "{version}");
    }
}

#[test]
fn who_disagrees_is_told_both_names() {
    assert_eq!(agree("a", "a"), Ok(()));
    let error = agree("a", &"b".repeat(1000)).unwrap_err();
    assert_eq!(error.kind, Kind::NotFound);
    assert!(error.message.contains("\"a\"") && error.message.len() < 300, "{error}");
}
