use axum::body::Body;
use http_body_util::BodyExt;

use super::*;

#[tokio::test]
async fn a_piece_is_stuck_when_a_whole_turn_has_not_sent_it() {
    let unsent = Arc::new(Unsent::default());
    let mut body = Pieces::new(Body::from("answer"), Some(unsent.clone()));
    let piece = body.frame().await.unwrap().unwrap();
    assert!(!unsent.turn(), "it came in this turn");
    assert!(unsent.turn());
    let late = Pieces::new(Body::from("more"), Some(unsent.clone())).frame().await.unwrap().unwrap();
    drop(piece);
    assert!(!unsent.turn(), "the other came in this turn");
    drop(late);
    assert!(!unsent.turn());
}

#[tokio::test]
async fn a_body_in_pieces_is_the_same_body() {
    for length in [0, 1, PIECE, PIECE + 1, 3 * PIECE + 7] {
        let bytes: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
        let body = Pieces::new(Body::from(bytes.clone()), Some(Arc::default()));
        assert_eq!(body.size_hint().exact(), Some(length as u64));
        assert_eq!(body.collect().await.unwrap().to_bytes(), bytes);
    }
}

#[tokio::test]
async fn an_answer_that_waits_for_news_is_not_stuck() {
    let unsent = Arc::new(Unsent::default());
    let waiting = Pieces::new(
        Body::from_stream(futures::stream::pending::<Result<Bytes, axum::Error>>()),
        Some(unsent.clone()),
    );
    assert!(!unsent.turn() && !unsent.turn());
    drop::<Pieces<Body>>(waiting);
}
