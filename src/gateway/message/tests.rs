use proptest::prelude::*;

use super::*;
use crate::protocol::Kind;

fn named(name: &str, version: &str) -> Vec<u8> {
    let mut message = Vec::new();
    string(1, name, &mut message);
    string(2, version, &mut message);
    message
}

#[test]
fn names_are_found_between_other_fields_of_every_kind() {
    let others: [&[u8]; 4] = [
        &[0x18, 0xff, 0x7f],             // 3: varint
        &[0x21, 1, 2, 3, 4, 5, 6, 7, 8], // 4: 64 bits
        &[0x2d, 1, 2, 3, 4],             // 5: 32 bits
        &[0x3a, 4, 0x0a, 2, b'x', b'x'], // 7: bytes that look like a name
    ];
    for before in others {
        for after in others {
            let message = [before, &named("m", "7"), after].concat();
            assert_eq!(name_and_version(&message), Ok(("m", "7")));
        }
    }
    assert_eq!(name_and_version(&[]), Ok(("", "")));
    assert_eq!(
        name_and_version(&[named("a", "1"), named("b", "")].concat()),
        Ok(("b", "")),
        "the last counts"
    );
}

#[test]
fn what_is_no_protobuf_is_refused() {
    for message in [
        &[0x0a][..],
        &[0x0a, 5, b'm'],
        &[0x0a, 1, 0xff],
        &[0x0b],
        &[0x02, 0],
        &[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
        &[0x80; 11],
        &[0x21, 1, 2],
    ] {
        assert_eq!(name_and_version(message).unwrap_err().kind, Kind::Invalid, "{message:?}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(message in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = name_and_version(&message);
        let _ = unframed(&message.clone().into(), 100);
        let _ = unpacked(&message, Compression::Gzip, 100);
        let _ = unpacked(&message, Compression::Deflate, 100);
    }

    #[test]
    fn what_is_written_is_read(name in "[a-z]{0,300}", version in "[0-9]{0,9}") {
        let message = named(&name, &version);
        prop_assert_eq!(name_and_version(&message), Ok((&*name, &*version)));
        let framed = frame(&message);
        prop_assert_eq!(unframed(&framed, 1000), Ok((false, message.into())));
    }
}

#[test]
fn a_frame_holds_what_it_announces() {
    for (body, kind) in [
        (&b""[..], Kind::Invalid),
        (b"\0\0\0\0\x01", Kind::Invalid),
        (b"\0\0\0\0\0x", Kind::Invalid),
        (b"\x02\0\0\0\0", Kind::Invalid),
        (b"\0\xff\xff\xff\xff", Kind::TooLarge),
    ] {
        assert_eq!(unframed(&Bytes::from_static(body), 100).unwrap_err().kind, kind, "{body:?}");
    }
    assert_eq!(unframed(&Bytes::from_static(b"\x01\0\0\0\x01x"), 100), Ok((true, Bytes::from_static(b"x"))));
}
