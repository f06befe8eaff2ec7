use super::*;

const MS: Duration = Duration::from_millis(1);

fn counts(duration: Option<StatisticDuration>) -> (u64, u64) {
    duration.map(|d| (d.count, d.ns)).unwrap()
}

#[test]
fn a_batch_counts_once_as_a_run_and_for_each_of_its_requests() {
    let statistics = Statistics::default();
    for _ in 0..2 {
        statistics.decoded(MS);
        statistics.queued(3 * MS);
    }
    statistics.executed(2, 5, 10 * MS);
    statistics.encoded(MS);
    statistics.succeeded(20 * MS);
    statistics.failed(7 * MS);

    let report = statistics.report("m", "3");
    assert_eq!((report.name.as_str(), report.version.as_str()), ("m", "3"));
    assert_eq!((report.inference_count, report.execution_count), (5, 1));
    assert!(report.last_inference > 0);
    let stats = report.inference_stats.unwrap();
    assert_eq!(counts(stats.success), (1, 20_000_000));
    assert_eq!(counts(stats.fail), (1, 7_000_000));
    assert_eq!(counts(stats.queue), (2, 6_000_000));
    assert_eq!(counts(stats.compute_input), (2, 2_000_000));
    assert_eq!(counts(stats.compute_infer), (2, 20_000_000), "both waited for the batch");
    assert_eq!(counts(stats.compute_output), (1, 1_000_000));
    let batch = &report.batch_stats[0];
    assert_eq!((report.batch_stats.len(), batch.batch_size), (1, 5));
    assert_eq!(counts(batch.compute_infer), (1, 10_000_000), "the run itself");
}

#[test]
fn batch_sizes_beyond_the_limit_are_counted_but_not_listed() {
    let statistics = Statistics::default();
    for rows in 1..=2 * BATCH_SIZES {
        statistics.executed(1, rows, MS);
    }
    let report = statistics.report("m", "1");
    assert_eq!((report.batch_stats.len(), report.execution_count), (BATCH_SIZES, 2 * BATCH_SIZES as u64));
}
