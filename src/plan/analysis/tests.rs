use super::*;

/// SplitMix64: the same histories on every machine.
pub struct Random(pub u64);

impl Random {
    pub fn share(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// The number of requests after which a candidate with this share of bad ones fails, read after each request.
fn fails_after(share: f64, limit: f64, requests: u64, random: &mut Random) -> Option<u64> {
    let mut sample = Sample::default();
    for n in 1..=requests {
        sample.requests = n;
        sample.bad += u64::from(random.share() < share);
        if judge(sample, limit, 200) == Verdict::Failed {
            return Some(n);
        }
    }
    None
}

#[test]
fn a_verdict_needs_requests_and_names_what_it_saw() {
    #[rustfmt::skip]
    let table = [
        // bad, requests, limit, verdict
        (0, 0, 0.001, Verdict::Inconclusive),
        (0, 199, 0.001, Verdict::Inconclusive),
        (0, 200, 0.001, Verdict::Passed),
        (1, 200, 0.001, Verdict::Inconclusive), // more than allowed, and may be chance
        (2, 2, 0.001, Verdict::Failed),
        (5, 200, 0.001, Verdict::Failed),
        (1, 1, 0.5, Verdict::Inconclusive),
        (0, 200, 0.0, Verdict::Passed),
        (1, 100_000, 0.0, Verdict::Failed),
        (100, 10_000, 0.01, Verdict::Passed),
        (200, 10_000, 0.01, Verdict::Failed),
        (10, 10, 1.0, Verdict::Inconclusive), // everything is allowed
        (300, 300, 1.0, Verdict::Passed),
        (1_000_000, 1_000_000, 0.001, Verdict::Failed), // and no overflow
    ];
    for (bad, requests, limit, verdict) in table {
        assert_eq!(
            judge(Sample { requests, bad }, limit, 200),
            verdict,
            "{bad} of {requests}, limit {limit}"
        );
    }
}

#[test]
fn a_candidate_within_its_limit_rarely_fails_however_often_it_is_looked_at() {
    let mut random = Random(1);
    for limit in [0.001, 0.01, 0.1] {
        let failed = (0..400).filter(|_| fails_after(limit, limit, 2_000, &mut random).is_some()).count();
        // 20 expected at most; 34 is three standard deviations above.
        assert!(failed <= 34, "{failed} of 400 at {limit}");
    }
}

#[test]
fn a_bad_candidate_is_caught_while_few_requests_have_suffered() {
    let mut random = Random(2);
    for (share, limit, within) in [(1.0, 0.001, 2), (0.5, 0.01, 20), (0.05, 0.001, 300), (0.03, 0.01, 2_000)]
    {
        let mut after: Vec<u64> = (0..101)
            .map(|_| fails_after(share, limit, 20_000, &mut random).expect("it is far above its limit"))
            .collect();
        after.sort_unstable();
        assert!(after[50] <= within, "{share} against {limit}: {} requests in the median", after[50]);
    }
}

#[test]
fn one_more_bad_request_never_clears_a_candidate() {
    for requests in [1, 10, 100, 1_000, 10_000] {
        for limit in [0.001, 0.01, 0.2] {
            let mut failed = false;
            for bad in 0..=requests.min(200) {
                let now = judge(Sample { requests, bad }, limit, 200) == Verdict::Failed;
                assert!(now || !failed, "{bad} of {requests}, limit {limit}");
                failed = now;
            }
        }
    }
}
