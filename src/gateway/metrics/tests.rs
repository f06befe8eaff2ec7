use super::*;
use crate::telemetry::page;

#[test]
fn the_page_lists_exactly_what_is_served() {
    let metrics = Metrics::default();
    metrics.arm("m", 1).answered(Code::Ok, Duration::from_millis(1));
    metrics.held("m", 1, 1);
    metrics.retried("m");
    metrics.refused("m", Refused::Memory);
    let shadow = metrics.shadow("m", 2);
    shadow.count(Outcome::Compared);
    shadow.output("score", &OutputReport::default());
    let listed = page::listed(include_str!("../../../docs/metrics.md"), "## The gateway");
    assert_eq!(page::served(&metrics.render(), &[]), listed);
}

#[test]
fn every_reason_is_explained() {
    let page = include_str!("../../../docs/metrics.md");
    for reason in Refused::ALL {
        assert!(page.contains(&format!("`{}`", reason.as_str())), "{reason:?}");
    }
    for outcome in Outcome::ALL {
        assert!(page.contains(&format!("`{}`", outcome.as_str())), "{outcome:?}");
    }
}

#[test]
fn grpc_codes_count_as_http_would() {
    for (status, code) in [
        ("0", "2xx"),
        ("1", "cancelled"),
        ("3", "4xx"),
        ("5", "4xx"),
        ("8", "4xx"),
        ("13", "5xx"),
        ("14", "5xx"),
        ("4", "5xx"),
        ("x", "5xx"),
    ] {
        assert_eq!(Code::of_grpc(status.as_bytes()).as_str(), code, "{status}");
    }
}
