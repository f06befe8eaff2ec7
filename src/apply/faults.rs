//! Crash points, compiled into test builds only: `MODELWRIGHT_CRASH=<moment>:<write number>`, the moment one of
//! `before` (nothing was sent), `sent` (the answer is lost) and `answered` (the answer is known, nothing is done
//! with it yet).

use std::sync::OnceLock;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    Before,
    Sent,
    Answered,
}

static CRASH: OnceLock<Option<(Moment, u64)>> = OnceLock::new();

pub fn point(moment: Moment, number: u64) {
    let crash = CRASH.get_or_init(|| {
        let text = std::env::var("MODELWRIGHT_CRASH").ok()?;
        let (moment, number) = text.split_once(':')?;
        let moment = match moment {
            "before" => Moment::Before,
            "sent" => Moment::Sent,
            "answered" => Moment::Answered,
            _ => return None,
        };
        Some((moment, number.parse().ok()?))
    });
    if *crash == Some((moment, number)) {
        eprintln!("crash point: {moment:?} write {number}");
        std::process::abort();
    }
}
