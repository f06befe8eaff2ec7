use super::*;

#[test]
fn one_number_is_read_and_anything_else_says_what_it_is() {
    let vector = |samples: &str| {
        format!(r#"{{"status":"success","data":{{"resultType":"vector","result":[{samples}]}}}}"#)
    };
    let sample = |value: &str| format!(r#"{{"metric":{{}},"value":[1.5,"{value}"]}}"#);
    for (body, wanted) in [
        (vector(&sample("0.25")), Ok(0.25)),
        (vector(&sample("1e-3")), Ok(0.001)),
        (vector(&sample("+Inf")), Ok(f64::INFINITY)),
        (r#"{"status":"success","data":{"resultType":"scalar","result":[1.5,"3"]}}"#.into(), Ok(3.0)),
        (vector(""), Err("the query finds nothing")),
        (vector(&sample("NaN")), Err("the query gives NaN")),
        (vector(&[sample("1"), sample("2")].join(",")), Err("the query gives 2 series instead of one")),
        (
            r#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#.into(),
            Err("the query gives a matrix instead of a number"),
        ),
        (r#"{"status":"error","errorType":"bad_data","error":"parse error"}"#.into(), Err("parse error")),
        (r#"{"status":"success"}"#.into(), Err("HTTP status 200 without a result")),
        ("<html>".into(), Err("HTTP status 200, and not what Prometheus answers")),
    ] {
        assert_eq!(read(200, body.as_bytes()), wanted.map_err(String::from), "{body}");
    }
}

#[tokio::test]
async fn an_address_inside_the_node_is_not_asked() {
    for address in ["http://127.0.0.1:9090", "http://169.254.169.254", "http://[::1]:9090/prometheus"] {
        let said = ask(address, "1", Duration::from_secs(5), false).await.unwrap_err();
        assert!(said.ends_with("where no Prometheus may stand"), "{said}");
    }
}

#[tokio::test]
async fn one_that_never_answers_is_given_up() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let said = ask(&address, "1", Duration::from_millis(50), true).await.unwrap_err();
    assert_eq!(said, format!("{address} gave no answer within 50ms"));
}
