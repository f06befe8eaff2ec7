#![no_main]
//! ONNX files: one byte for how much the store gives at a time, then the file.

use libfuzzer_sys::fuzz_target;
use modelwright::onnx::{MAX_READ, Model, ONNX_RUNTIME, OnnxError, Walk, check_location};
use modelwright_fuzz::{LITTLE, within};

fn walk(file: &[u8], step: usize) -> Result<Model, OnnxError> {
    let mut walk = Walk::new(file.len() as u64)?;
    let (mut last, mut reads) = (0, 0);
    while let Some(range) = walk.wanted()? {
        let (from, to) = (range.offset as usize, range.offset as usize + range.len);
        assert!(0 < range.len && range.len <= MAX_READ && last <= from && to <= file.len(), "{range:?}");
        let to = to.min(from + step);
        walk.supply(&file[from..to])?;
        last = to;
        reads += 1;
        assert!(reads <= file.len() + 1, "it asks for ever");
    }
    walk.finish()
}

fuzz_target!(|data: &[u8]| {
    let Some((step, file)) = data.split_first() else { return };
    // Names of nothing, each kept with its place in a map.
    let whole = within(64, data.len(), LITTLE, || walk(file, MAX_READ));
    // What is found does not depend on how it comes.
    assert_eq!(whole, walk(file, usize::from(*step) + 1));
    let Ok(model) = whole else { return };
    for location in model.external.keys() {
        assert_eq!(check_location(location).as_ref(), Ok(location));
        assert!(!location.starts_with('/') && !location.split('/').any(|part| part == ".."), "{location}");
    }
    let _ = model.supported_by(&ONNX_RUNTIME);
    let summary = model.summary();
    let again = serde_json::from_slice(&serde_json::to_vec(&summary).unwrap()).unwrap();
    assert_eq!(summary, again);
});
