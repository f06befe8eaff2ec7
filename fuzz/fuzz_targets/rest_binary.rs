#![no_main]
//! Binary requests: two bytes for the length of the JSON, then the body.

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use modelwright::protocol::rest::decode;
use modelwright_fuzz::{LITTLE, PROMISE, agree, within};

fuzz_target!(|data: &[u8]| {
    let Some((length, body)) = data.split_first_chunk() else { return };
    let length = usize::from(u16::from_le_bytes(*length));
    let body = Bytes::copy_from_slice(body);
    if let Ok(request) = within(32, data.len(), LITTLE + PROMISE, || decode(&body, Some(length))) {
        agree(request);
    }
});
