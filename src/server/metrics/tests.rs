use super::*;
use crate::telemetry::page;

fn sample<'a>(text: &'a str, start: &str) -> &'a str {
    let line = text.lines().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("{start}: {text}"));
    line.rsplit_once(' ').unwrap().1
}

#[test]
fn the_page_lists_exactly_what_is_served() {
    let metrics = Metrics::new("m-r1");
    metrics.loaded("load", 1.0);
    metrics.session_memory("process", 1);
    let listed = page::listed(include_str!("../../../docs/metrics.md"), "## The server");
    assert_eq!(page::served(&metrics.text().unwrap(), &["revision"]), listed);
}

#[test]
fn a_request_counts_by_its_end_and_one_that_is_dropped_was_cancelled() {
    let metrics = Metrics::new("m-r1");
    metrics.begin(Protocol::Rest).end(OK);
    metrics.begin(Protocol::Grpc).end(OK);
    metrics.begin(Protocol::Grpc).end("invalid");
    drop(metrics.begin(Protocol::Grpc));
    let flight = metrics.begin(Protocol::Rest);
    let text = metrics.text().unwrap();
    let count = |protocol, outcome| {
        let labels = format!("{{revision=\"m-r1\",protocol=\"{protocol}\",outcome=\"{outcome}\"}}");
        sample(&text, &format!("modelwright_requests_total{labels}")).to_string()
    };
    assert_eq!([count("rest", "ok"), count("grpc", "ok")], ["1", "1"]);
    assert_eq!([count("grpc", "invalid"), count("grpc", "cancelled")], ["1", "1"]);
    assert_eq!(sample(&text, "modelwright_requests_in_flight"), "1");
    assert_eq!(sample(&text, "modelwright_request_duration_seconds_count"), "4");
    flight.end(OK);
    assert_eq!(sample(&metrics.text().unwrap(), "modelwright_requests_in_flight"), "0");
}
