#![no_main]
//! gRPC messages, from bytes, as the server's codec reads them.

use libfuzzer_sys::fuzz_target;
use modelwright::protocol::grpc::{check_size, decode, proto::ModelInferRequest};
use modelwright_fuzz::{LITTLE, agree, within};
use prost::Message;

fuzz_target!(|data: &[u8]| {
    let read = || {
        check_size(data).ok()?;
        decode(ModelInferRequest::decode(data).ok()?).ok()
    };
    // A tensor of nothing is two bytes on the wire.
    if let Some(request) = within(400, data.len(), LITTLE, read) {
        agree(request);
    }
});
