use super::digest::check;
use super::source::{folder_of, only_model};
use super::*;

#[test]
fn addresses_of_nobody_else_are_forbidden() {
    for (address, what) in [
        ("127.0.0.1", "a loopback address"),
        ("127.255.0.9", "a loopback address"),
        ("::1", "a loopback address"),
        ("::ffff:127.0.0.1", "a loopback address"),
        ("::127.0.0.1", "a loopback address"),
        ("64:ff9b::7f00:1", "a loopback address"),
        ("2002:7f00:1::", "a loopback address"),
        ("169.254.169.254", "a link-local address"),
        ("::ffff:169.254.169.254", "a link-local address"),
        ("64:ff9b::a9fe:a9fe", "a link-local address"),
        ("fe80::1", "a link-local address"),
        ("fd00:ec2::254", "a metadata address"),
        ("fd20:ce::254", "a metadata address"),
        ("100.100.100.200", "a metadata address"),
        ("::ffff:168.63.129.16", "a metadata address"),
        ("0.0.0.0", "no host's address"),
        ("0.1.2.3", "no host's address"),
        ("::", "no host's address"),
        ("224.0.0.1", "no host's address"),
        ("ff02::1", "no host's address"),
        ("255.255.255.255", "no host's address"),
    ] {
        assert_eq!(forbidden(address.parse().unwrap(), false), Some(what), "{address}");
    }
    for address in ["10.0.0.1", "192.168.1.1", "172.16.0.1", "93.184.216.34", "fd00::1", "2606:4700::1111"] {
        assert_eq!(forbidden(address.parse().unwrap(), false), None, "{address}");
    }
    assert_eq!(forbidden("127.0.0.1".parse().unwrap(), true), None);
    assert!(forbidden("169.254.169.254".parse().unwrap(), true).is_some(), "loopback only");
    assert!(!Env::default().allow_loopback);
}

#[test]
fn digests_are_what_sha256sum_prints() {
    let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let one = [("m.onnx".to_string(), empty.to_string())];
    assert_eq!(digest_of(&one), format!("sha256:{empty}"));
    // printf '' > b; printf a > a; sha256sum b a | LC_ALL=C sort | sha256sum
    let a = "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb";
    let two = [("b".to_string(), empty.to_string()), ("a".to_string(), a.to_string())];
    let expected = "sha256:fb41f4bdc62e333b98e376fb2155d487eead00307a00a58924a43f83b4785c56";
    assert_eq!(digest_of(&two), expected);
    assert!(check(expected).is_ok());
    for bad in ["", "sha256:", "md5:00", &expected.to_uppercase(), &expected[..70], &format!("{expected}0")] {
        assert_eq!(check(bad).unwrap_err().reason(), "DigestMismatch");
    }
}

#[test]
fn a_folder_is_told_from_a_file() {
    for (whole, model, folder) in [
        ("a/b/m.onnx", "m.onnx", "a/b/"),
        ("m.onnx", "m.onnx", ""),
        ("a/b", "m.onnx", "a/b/"),
        ("a/b/", "m.onnx", "a/b/"),
        ("", "m.onnx", ""),
        ("a/xm.onnx", "m.onnx", "a/xm.onnx/"),
        ("m.onnx/", "m.onnx", "m.onnx/"),
    ] {
        assert_eq!(folder_of(whole, model), folder, "{whole}");
    }
    assert_eq!(only_model(["w.bin", "m.onnx", "sub/n.onnx"].into_iter(), "s").as_deref(), Ok("m.onnx"));
    assert_eq!(only_model(["w.bin"].into_iter(), "s").unwrap_err().reason(), "SourceNotFound");
    assert_eq!(only_model(["a.onnx", "b.onnx"].into_iter(), "s").unwrap_err().reason(), "ModelInvalid");
}

#[test]
fn only_what_may_pass_by_itself_is_transient() {
    let text = String::new;
    assert!(LoadError::Unavailable(text()).is_transient());
    for error in [LoadError::NotFound(text()), LoadError::Changed(text()), LoadError::Secret(text())] {
        assert!(!error.is_transient());
    }
    assert!(LoadError::Changed("x".into()).to_string().contains("modelwright.dev/resolve-at=<time>"));
}
