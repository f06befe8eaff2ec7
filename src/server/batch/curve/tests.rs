use super::*;

fn learnt(a: f64, c: f64, rows: impl IntoIterator<Item = usize>) -> Curve {
    let mut curve = Curve::default();
    for rows in rows {
        for _ in 0..SAMPLES {
            curve.observe(rows, a + c * rows as f64);
        }
    }
    curve
}

#[test]
fn the_cap_is_four_until_two_sizes_are_known() {
    assert_eq!(Curve::default().cap(), 4);
    assert_eq!(learnt(0.65, 3.43, [1]).cap(), 4);
    assert_eq!(learnt(0.65, 3.43, [1]).seconds(1), None);
}

#[test]
fn minilm_gets_eight_rows_and_a_flat_curve_all_there_are() {
    assert_eq!(learnt(0.65e-3, 3.43e-3, 1..=4).cap(), 8);
    assert_eq!(learnt(5e-3, 0.0, [1, 4, 32]).cap(), MAX_ROWS);
    assert_eq!(learnt(0.0, 1e-3, [1, 4]).cap(), 2);
}

#[test]
fn sizes_that_brought_nothing_are_left_and_untried_ones_come_step_by_step() {
    let mut curve = learnt(0.0, 0.0, []);
    // MiniLM-L3 on a CPU with 1 MiB of second-level cache, milliseconds a row.
    for (rows, per_row) in [(1, 2.17), (2, 1.90), (4, 1.84), (8, 1.71), (16, 1.705), (32, 1.754)] {
        for _ in 0..SAMPLES {
            curve.observe(rows, rows as f64 * per_row * 1e-3);
        }
    }
    assert_eq!(curve.cap(), 8);
    assert_eq!(learnt(5e-3, 0.0, [1, 4]).cap(), 8, "nothing is known beyond 4");
}

#[test]
fn the_line_goes_through_what_was_measured() {
    let curve = learnt(2e-3, 1e-3, [1, 2, 4]);
    let seconds = curve.seconds(8).unwrap();
    assert!((seconds - 10e-3).abs() < 1e-9, "{seconds}");
}

#[test]
fn a_run_that_was_disturbed_moves_little_and_a_slower_model_is_believed_in_time() {
    let mut curve = learnt(0.65e-3, 3.43e-3, 1..=4);
    curve.observe(4, 1.0);
    assert!(curve.seconds(4).unwrap() < 0.04);
    for _ in 0..500 {
        for rows in 1..=4 {
            curve.observe(rows, 10e-3 * rows as f64);
        }
    }
    let seconds = curve.seconds(4).unwrap();
    assert!((seconds - 40e-3).abs() < 1e-3, "{seconds}");
}

#[test]
fn sizes_out_of_range_are_left_aside() {
    let mut curve = learnt(1e-3, 1e-3, [1, 2]);
    curve.observe(0, 1e9);
    curve.observe(MAX_ROWS + 1, 1e9);
    curve.observe(1, f64::NAN);
    assert_eq!(curve.seconds(1).map(|s| (s * 1e6).round()), Some(2000.0));
}
