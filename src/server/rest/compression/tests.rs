use super::*;

const BOTH: [Encoding; 2] = [Encoding::Gzip, Encoding::Deflate];

fn unpack(encoding: Encoding, packed: &[u8], limit: usize) -> Result<Bytes, Error> {
    let mut unpacker = Unpacker::new(encoding, limit);
    for piece in packed.chunks(7) {
        unpacker.push(piece)?;
    }
    unpacker.finish()
}

#[test]
fn what_is_packed_is_unpacked_in_pieces() {
    let body: Vec<u8> = (0..100_000u32).flat_map(|i| i.wrapping_mul(i).to_le_bytes()).collect();
    for encoding in BOTH {
        let packed = encoding.pack(&body).unwrap();
        assert_eq!(unpack(encoding, &packed, body.len()).unwrap(), body);
    }
}

#[test]
fn a_body_that_unpacks_to_more_than_the_limit_is_too_large_and_not_kept() {
    for encoding in BOTH {
        let bomb = encoding.pack(&vec![0; 64 << 20]).unwrap();
        assert!(bomb.len() < 1 << 20);
        let mut unpacker = Unpacker::new(encoding, 1 << 20);
        assert_eq!(unpacker.push(&bomb).unwrap_err(), Error::too_large(1 << 20));
        assert!(unpacker.body().body.capacity() <= 2 << 20);
    }
}

#[test]
fn a_body_that_is_cut_off_or_no_archive_at_all_is_invalid() {
    for encoding in BOTH {
        let packed = encoding.pack(&[7; 5000]).unwrap();
        for broken in [&packed[..packed.len() - 3], b"{}", b"", &[0x1f, 0x8b, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9]] {
            let error = unpack(encoding, broken, 1 << 20).unwrap_err();
            assert_eq!(error.kind, Kind::Invalid, "{encoding:?} {broken:?}: {error}");
            assert_eq!(
                error.message,
                format!("the body is not {}, as content-encoding says", encoding.name())
            );
        }
    }
}

#[test]
fn headers_choose_the_encoding() {
    let headers =
        |name: header::HeaderName, value: &str| HeaderMap::from_iter([(name, value.parse().unwrap())]);
    for (value, wanted) in
        [("gzip", Some(Encoding::Gzip)), ("Deflate", Some(Encoding::Deflate)), ("identity", None)]
    {
        assert_eq!(Encoding::of_request(&headers(header::CONTENT_ENCODING, value)), Ok(wanted));
    }
    for value in ["br", "gzip, gzip", "ümlaut"] {
        let error = Encoding::of_request(&headers(header::CONTENT_ENCODING, value)).unwrap_err();
        assert_eq!(error.kind, Kind::UnsupportedMedia, "{value}");
    }
    for (value, wanted) in [
        ("gzip", Some(Encoding::Gzip)),
        ("br, deflate;q=0.5, gzip", Some(Encoding::Deflate)),
        ("gzip;q=0, deflate", Some(Encoding::Deflate)),
        ("*", None),
        ("br", None),
        ("", None),
    ] {
        assert_eq!(Encoding::of_answer(&headers(header::ACCEPT_ENCODING, value), 5000), wanted, "{value}");
    }
    assert_eq!(Encoding::of_answer(&headers(header::ACCEPT_ENCODING, "gzip"), 100), None, "it is small");
}
