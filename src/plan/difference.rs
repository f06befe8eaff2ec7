//! Whether a candidate's answers are near enough to the stable revision's.
//!
//! Errors, cosine and NaN are worst cases: one answer beyond its budget fails the candidate. Agreement is a share, and so
//! are answers that failed: for those, see `analysis`.

use super::analysis::{self, Sample};
use super::trial::decimal;
use crate::api::{AnalysisVerdict as Verdict, OutputBudget};
use crate::formats::{OutputReport, ShadowReport};

/// Of the requests that the stable revision answered well, those that the candidate may fail: it is mirrored to beside
/// all else that it does.
const FAILED: f64 = 0.01;
/// The cosine of a vector with itself may be as far from 1.
const ROUNDING: f64 = 1e-9;

#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    pub verdict: Verdict,
    /// Of the measure that is worst: nearest to its budget, or farthest beyond it.
    pub observed: Option<String>,
    pub max: String,
    pub worst: Option<String>,
    /// What no figure tells.
    pub message: Option<String>,
}

/// One measure of one output.
struct Measure {
    what: String,
    observed: f64,
    limit: f64,
    /// What it has used of its budget: more than 1 is beyond it.
    used: f64,
    verdict: Verdict,
}

/// `needed`: answers, before it can pass.
pub fn judge(budgets: &[OutputBudget], found: &ShadowReport, needed: u64) -> Found {
    let plain = |verdict, message: Option<String>| Found {
        verdict,
        observed: None,
        max: "0".into(),
        worst: None,
        message,
    };
    let example = found.example.clone();
    if found.mismatched > 0 {
        let observed = Some(found.mismatched.to_string());
        let worst = Some("answers of another form".into());
        return Found { observed, worst, ..plain(Verdict::Failed, example) };
    }
    let answers = Sample { requests: found.compared + found.failed, bad: found.failed };
    let failures = analysis::judge(answers, FAILED, 0);
    if failures == Verdict::Failed {
        let observed = Some(decimal(answers.share()));
        let worst = Some("share of failed answers".into());
        return Found { observed, worst, max: decimal(FAILED), ..plain(Verdict::Failed, example) };
    }
    let none = OutputReport::default();
    let measures: Vec<Measure> = budgets
        .iter()
        .flat_map(|budget| measures(budget, found.outputs.get(&budget.name).unwrap_or(&none)))
        .collect();
    let unseen = budgets.iter().find(|budget| !found.outputs.contains_key(&budget.name));
    let message = match unseen.filter(|_| found.compared > 0) {
        Some(budget) => Some(format!("no answer has an output {:?}", budget.name)),
        None => example,
    };
    let is = |verdict| move |measure: &Measure| measure.verdict == verdict;
    let verdict = if measures.iter().any(is(Verdict::Failed)) {
        Verdict::Failed
    } else if found.compared < needed || unseen.is_some() || failures != Verdict::Passed {
        Verdict::Inconclusive
    } else if measures.iter().all(is(Verdict::Passed)) {
        Verdict::Passed
    } else {
        Verdict::Inconclusive
    };
    // One that has failed goes before one that may be beyond its share by chance.
    let rank = |measure: &&Measure| (measure.verdict == Verdict::Failed, measure.used);
    let order = |a: &&Measure, b: &&Measure| {
        let ((failed_a, used_a), (failed_b, used_b)) = (rank(a), rank(b));
        failed_a.cmp(&failed_b).then(used_a.total_cmp(&used_b))
    };
    let Some(worst) = measures.iter().max_by(order) else { return plain(verdict, message) };
    Found {
        verdict,
        observed: (found.compared > 0).then(|| decimal(worst.observed)),
        max: decimal(worst.limit),
        worst: Some(worst.what.clone()),
        message,
    }
}

fn measures(budget: &OutputBudget, found: &OutputReport) -> Vec<Measure> {
    // The schema lets only decimals in.
    let number = |text: &String| text.parse::<f64>().unwrap_or(0.0);
    let name = |measure: &str| format!("output {}, {measure}", budget.name);
    let most = |what: &str, limit: Option<f64>, observed: f64| {
        limit.map(|limit| Measure {
            what: name(what),
            observed,
            limit,
            used: if observed <= 0.0 { 0.0 } else { observed / limit },
            verdict: if observed > limit { Verdict::Failed } else { Verdict::Passed },
        })
    };
    let absolute = most("absolute", budget.max_absolute.as_ref().map(number), found.max_absolute);
    let relative = most("relative", budget.max_relative.as_ref().map(number), found.max_relative);
    let cosine = budget.min_cosine.as_ref().map(number).map(|limit| {
        let (apart, allowed) = (1.0 - found.min_cosine, 1.0 - limit + ROUNDING);
        Measure {
            what: name("cosine"),
            observed: found.min_cosine,
            limit,
            used: apart / allowed,
            verdict: if apart > allowed { Verdict::Failed } else { Verdict::Passed },
        }
    });
    let nan = most("NaN", Some(budget.max_nan.unwrap_or(0) as f64), found.nan as f64);
    let nan = nan.filter(|measure| budget.max_nan.is_some() || measure.verdict == Verdict::Failed);
    let agreement = budget.min_top1_agreement.as_ref().map(number).map(|limit| {
        let apart = Sample { requests: found.rows, bad: found.rows - found.agreeing.min(found.rows) };
        let allowed = 1.0 - limit;
        Measure {
            what: name("top-1 agreement"),
            observed: 1.0 - apart.share(),
            limit,
            used: if apart.bad == 0 { 0.0 } else { apart.share() / allowed },
            verdict: analysis::judge(apart, allowed, 0),
        }
    });
    [absolute, relative, cosine, nan, agreement].into_iter().flatten().collect()
}

#[cfg(test)]
mod tests;
