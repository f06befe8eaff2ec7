use axum::body::Body;
use http_body_util::StreamBody;
use hyper::body::Frame;

use super::*;

fn body(pieces: &[&'static str]) -> Body {
    let frames: Vec<_> =
        pieces.iter().map(|p| Ok::<_, Error>(Frame::data(Bytes::from_static(p.as_bytes())))).collect();
    Body::new(StreamBody::new(futures::stream::iter(frames)))
}

#[tokio::test]
async fn a_body_is_joined_whatever_its_pieces() {
    for pieces in [&[][..], &[""], &["abc"], &["a", "", "b", "c"], &["", "ab", "c"]] {
        let mut share = Bodies::new(1, None).share();
        let joined = join(body(pieces), 3, &mut share).await.unwrap();
        assert_eq!(joined, pieces.concat());
        assert_eq!(share.bytes, joined.len());
    }
}

#[tokio::test]
async fn a_body_above_the_limit_is_refused() {
    for pieces in [&["abcd"][..], &["ab", "cd"], &["a", "b", "c", "d"]] {
        let refused = join(body(pieces), 3, &mut Bodies::new(1, None).share()).await;
        assert_eq!(refused, Err(Error::too_large(3)));
    }
}

#[test]
fn bodies_take_a_part_of_a_small_container_and_one_always_fits() {
    const MIB: usize = 1 << 20;
    for (largest, memory, wanted) in [
        (64 * MIB, None, 256 * MIB),
        (100 * MIB, None, 400 * MIB),
        (64 * MIB, Some(16 << 30), 256 * MIB),
        (64 * MIB, Some(512 << 20), 128 * MIB),
        (64 * MIB, Some(128 << 20), 64 * MIB),
        (MIB, Some(0), MIB),
        (usize::MAX, Some(u64::MAX), usize::MAX),
    ] {
        assert_eq!(limit(largest, memory), wanted, "{largest} of {memory:?}");
    }
}

#[tokio::test]
async fn what_all_requests_hold_is_bounded_and_given_back() {
    let bodies = Bodies::new(LEAST, None);
    let mut shares: Vec<Share> = (0..4).map(|_| bodies.share()).collect();
    for share in &mut shares {
        share.take(LEAST).unwrap();
    }
    let refused = join(body(&["a"]), 3, &mut bodies.share()).await.unwrap_err();
    assert_eq!(refused.kind, Kind::Unavailable);
    drop(shares.pop());
    join(body(&["a"]), 3, &mut bodies.share()).await.unwrap();
    drop(shares);
    assert_eq!(bodies.held.load(Ordering::Relaxed), 0);
}
