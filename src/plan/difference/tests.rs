use super::*;

fn report(compared: u64, output: OutputReport) -> ShadowReport {
    ShadowReport { compared, outputs: [("score".to_string(), output)].into(), ..Default::default() }
}

fn output(
    max_absolute: f64,
    max_relative: f64,
    min_cosine: f64,
    (agreeing, rows): (u64, u64),
) -> OutputReport {
    OutputReport { samples: 1, max_absolute, max_relative, min_cosine, rows, agreeing, nan: 0 }
}

fn budget(set: impl FnOnce(&mut OutputBudget)) -> Vec<OutputBudget> {
    let mut budget = OutputBudget { name: "score".into(), ..Default::default() };
    set(&mut budget);
    vec![budget]
}

fn said(found: &Found) -> String {
    let Found { verdict, observed, max, worst, message } = found;
    let observed = observed.as_deref().unwrap_or("nothing");
    let worst = worst.as_deref().unwrap_or("nothing");
    let message = message.as_deref().map(|m| format!("; {m}")).unwrap_or_default();
    format!("{verdict:?}: {worst} is {observed}, limit {max}{message}")
}

#[test]
fn a_worst_case_beyond_its_budget_fails_at_once_and_the_nearest_to_it_is_named() {
    let absolute = |b: &mut OutputBudget| b.max_absolute = Some("0.01".into());
    let relative = |b: &mut OutputBudget| b.max_relative = Some("0.1".into());
    let cosine = |b: &mut OutputBudget| b.min_cosine = Some("0.999".into());
    let agreement = |b: &mut OutputBudget| b.min_top1_agreement = Some("0.9".into());
    let all = |b: &mut OutputBudget| {
        absolute(b);
        relative(b);
        cosine(b);
        agreement(b);
    };
    for (budgets, compared, found, wanted) in [
        (
            budget(absolute),
            100,
            output(0.0031, 0.5, 0.5, (0, 0)),
            "Passed: output score, absolute is 0.0031, limit 0.01",
        ),
        (
            budget(absolute),
            99,
            output(0.0031, 0.0, 1.0, (0, 0)),
            "Inconclusive: output score, absolute is 0.0031, limit 0.01",
        ),
        (
            budget(absolute),
            1,
            output(0.0101, 0.0, 1.0, (0, 0)),
            "Failed: output score, absolute is 0.0101, limit 0.01",
        ),
        (budget(absolute), 1, output(f64::MAX, 0.0, 1.0, (0, 0)), "Failed: output score, absolute is "),
        (
            budget(relative),
            1,
            output(0.0, 0.2, 1.0, (0, 0)),
            "Failed: output score, relative is 0.2, limit 0.1",
        ),
        (
            budget(cosine),
            1,
            output(0.0, 0.0, 0.99, (0, 0)),
            "Failed: output score, cosine is 0.99, limit 0.999",
        ),
        (
            budget(cosine),
            100,
            output(9.0, 2.0, 1.0 - 1e-16, (0, 0)),
            "Passed: output score, cosine is 1, limit 0.999",
        ),
        (
            budget(agreement),
            100,
            output(9.0, 2.0, 0.0, (100, 100)),
            "Passed: output score, top-1 agreement is 1, limit 0.9",
        ),
        // One of one may be chance, and so may a few more than allowed.
        (
            budget(agreement),
            1,
            output(9.0, 2.0, 0.0, (0, 1)),
            "Inconclusive: output score, top-1 agreement is 0, limit 0.9",
        ),
        (
            budget(agreement),
            100,
            output(9.0, 2.0, 0.0, (88, 100)),
            "Inconclusive: output score, top-1 agreement is 0.88, limit 0.9",
        ),
        (
            budget(agreement),
            100,
            output(9.0, 2.0, 0.0, (50, 100)),
            "Failed: output score, top-1 agreement is 0.5, limit 0.9",
        ),
        (
            budget(all),
            100,
            output(0.001, 0.09, 1.0, (95, 100)),
            "Passed: output score, relative is 0.09, limit 0.1",
        ),
        // Failed goes before what may be chance.
        (
            budget(all),
            1,
            output(0.02, 0.09, 1.0, (0, 1)),
            "Failed: output score, absolute is 0.02, limit 0.01",
        ),
    ] {
        let found = said(&judge(&budgets, &report(compared, found), 100));
        assert!(found.starts_with(wanted), "{found}\n{wanted}");
    }
}

#[test]
fn a_nan_on_one_side_fails_unless_some_are_allowed() {
    let nan = |count| report(100, OutputReport { nan: count, ..output(0.0, 0.0, 1.0, (0, 0)) });
    let loose = |b: &mut OutputBudget| b.max_absolute = Some("1".into());
    assert_eq!(said(&judge(&budget(loose), &nan(1), 1)), "Failed: output score, NaN is 1, limit 0");
    let some = |b: &mut OutputBudget| b.max_nan = Some(2);
    assert_eq!(said(&judge(&budget(some), &nan(1), 1)), "Passed: output score, NaN is 1, limit 2");
    assert_eq!(said(&judge(&budget(some), &nan(3), 1)), "Failed: output score, NaN is 3, limit 2");
}

#[test]
fn equal_answers_meet_budgets_of_nothing() {
    let strict = |b: &mut OutputBudget| {
        b.max_absolute = Some("0".into());
        b.min_cosine = Some("1".into());
        b.min_top1_agreement = Some("1".into());
    };
    let equal = report(10, output(0.0, 0.0, 1.0 - 1e-15, (10, 10)));
    assert_eq!(judge(&budget(strict), &equal, 10).verdict, Verdict::Passed);
    let apart = report(10, output(1e-9, 0.0, 1.0, (9, 10)));
    assert_eq!(judge(&budget(strict), &apart, 10).verdict, Verdict::Failed);
}

#[test]
fn another_form_or_many_failed_answers_fail_whatever_the_budgets() {
    let loose = budget(|b| b.max_absolute = Some("1000".into()));
    let fine = output(0.0, 0.0, 1.0, (0, 0));
    let example = Some("output \"score\" is missing".to_string());
    let form = ShadowReport { mismatched: 1, example, ..report(1000, fine) };
    assert_eq!(
        said(&judge(&loose, &form, 1)),
        "Failed: answers of another form is 1, limit 0; output \"score\" is missing"
    );
    let failing = |failed| ShadowReport { failed, example: Some("status 500".into()), ..report(900, fine) };
    assert_eq!(
        said(&judge(&loose, &failing(100), 1)),
        "Failed: share of failed answers is 0.1, limit 0.01; status 500"
    );
    // A pod that was replaced breaks a few.
    assert_eq!(judge(&loose, &failing(3), 1).verdict, Verdict::Passed);
    assert_eq!(judge(&loose, &failing(10), 1).verdict, Verdict::Inconclusive);
}

#[test]
fn nothing_is_known_before_the_first_answer_and_an_output_that_never_comes_is_named() {
    let budgets = budget(|b| b.max_absolute = Some("0.01".into()));
    assert_eq!(
        said(&judge(&budgets, &ShadowReport::default(), 1)),
        "Inconclusive: output score, absolute is nothing, limit 0.01"
    );
    let other = ShadowReport { compared: 500, ..Default::default() };
    assert_eq!(
        said(&judge(&budgets, &other, 1)),
        "Inconclusive: output score, absolute is 0, limit 0.01; no answer has an output \"score\""
    );
}
