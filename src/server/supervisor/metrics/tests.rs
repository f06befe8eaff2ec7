use super::*;

#[test]
fn families_of_several_workers_stand_together() {
    let text = |revision: &str| {
        format!(
            "# HELP a Help.\n# TYPE a counter\na_total{{revision=\"{revision}\"}} 1\n# TYPE b gauge\nb{{revision=\"{revision}\"}} 2\n# EOF\n"
        )
    };
    assert_eq!(
        merge(&[text("m-r1"), text("m-r2")]),
        "# HELP a Help.\n# TYPE a counter\na_total{revision=\"m-r1\"} 1\na_total{revision=\"m-r2\"} 1\n\
         # TYPE b gauge\nb{revision=\"m-r1\"} 2\nb{revision=\"m-r2\"} 2\n# EOF\n"
    );
}

#[test]
fn no_worker_is_an_empty_document() {
    assert_eq!(merge(&[]), "# EOF\n");
}
