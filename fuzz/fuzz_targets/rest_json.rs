#![no_main]
//! JSON requests: what is read is written and read again, in every form.

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use modelwright::protocol::rest::decode;
use modelwright_fuzz::{LITTLE, PROMISE, agree, within};

fuzz_target!(|data: &[u8]| {
    let body = Bytes::copy_from_slice(data);
    if let Ok(request) = within(32, data.len(), LITTLE + PROMISE, || decode(&body, None)) {
        agree(request);
    }
});
