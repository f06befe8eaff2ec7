//! Models that never come to an end.

use serde_json::json;

use crate::support::onnx::{Message, model, node, types, value};
use crate::support::{Served, fp32, infer, until};

/// `y` is `x` doubled `n` times, in an ONNX Loop.
fn doubling() -> Vec<u8> {
    const GRAPH: i64 = 5;
    let inner = |name: &str, element| value(name, element, &[]);
    let row = |name: &str| value(name, types::FLOAT, &[1]);
    let nodes = [node("Identity", "", &["go"], &["on"]), node("Add", "", &["v", "v"], &["twice"])];
    let body = Message::default()
        .all(1, nodes)
        .text(2, "body")
        .all(11, [inner("i", types::INT64), inner("go", types::BOOL), row("v")])
        .all(12, [inner("on", types::BOOL), row("twice")]);
    let attribute = Message::default().text(1, "body").message(6, body).int(20, GRAPH);
    let nodes = vec![node("Loop", "", &["n", "", "x"], &["y"]).message(5, attribute)];
    model(17, nodes, vec![value("n", types::INT64, &[]), row("x")], vec![row("y")])
}

/// One thread, so that a run that is not ended would be the server's last.
#[tokio::test]
async fn an_endless_run_is_ended_once_nobody_waits_for_it() {
    let one_thread = ["--request-timeout-seconds", "1", "--session-option", "intra_op_num_threads=0"];
    let served = Served::new(&doubling(), &one_thread).await;
    let times = |n: i64| {
        let n = json!({ "name": "n", "datatype": "INT64", "shape": [], "data": [n] });
        json!({ "inputs": [n, fp32("x", &[1], json!([1]))] })
    };
    for _ in 0..2 {
        assert_eq!(infer(served.port(), &times(i64::MAX)).await.0, 504);
        let answer = until("the thread is free again", async || {
            let (status, answer) = infer(served.port(), &times(3)).await;
            (status == 200).then_some(answer)
        })
        .await;
        assert_eq!(answer["outputs"][0]["data"], json!([8.0]));
    }
}
