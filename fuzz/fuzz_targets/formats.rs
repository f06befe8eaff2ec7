#![no_main]
//! What the processes hand to each other: a document that is read is written and read again, unchanged.

use std::fmt::Debug;

use libfuzzer_sys::fuzz_target;
use modelwright::formats::{Assignments, LoadStatus, PodState, ResolveReport, SourceRequest};
use modelwright_fuzz::{LITTLE, within};
use serde::Serialize;
use serde::de::DeserializeOwned;

fn survives<T: Serialize + DeserializeOwned + PartialEq + Debug>(data: &[u8]) {
    let Ok(read) = within(64, data.len(), LITTLE, || serde_json::from_slice::<T>(data)) else { return };
    let again: T = serde_json::from_slice(&serde_json::to_vec(&read).unwrap()).unwrap();
    assert_eq!(read, again);
}

fuzz_target!(|data: &[u8]| {
    survives::<Assignments>(data);
    survives::<LoadStatus>(data);
    survives::<PodState>(data);
    survives::<SourceRequest>(data);
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(report) = ResolveReport::decode(text) else { return };
    // One that names too many files for a termination message is refused; other long ones are cut.
    let Ok(written) = report.encode() else { return };
    let again = ResolveReport::decode(&written).unwrap();
    let is_cut = match &again {
        ResolveReport::Failed { .. } => written.len() >= 4096,
        ResolveReport::Resolved(resolved) => resolved.graph.truncated,
    };
    assert!(is_cut || report == again, "{report:?} became {again:?}");
});
