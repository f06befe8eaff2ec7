//! What the targets share: a count of memory, and a request's tensors in every form there is.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;
use modelwright::protocol::grpc::{self, proto};
use modelwright::protocol::{InferRequest, InferResponse, Tensor, rest};
use serde_json::value::RawValue;

struct Counted;

#[global_allocator]
static COUNTED: Counted = Counted;
static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: the system's allocator, and two counters.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.fetch_add(layout.size(), Relaxed) + layout.size();
        PEAK.fetch_max(held, Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Relaxed);
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// What is held of a small input, whatever it says.
pub const LITTLE: usize = 16 << 10;
/// Room for 65,536 numbers, which a JSON request's shape is trusted with.
pub const PROMISE: usize = 8 << 16;

/// Runs `read`, which may hold `factor` bytes for each of the `size` bytes of its input, and `spare`.
pub fn within<T>(factor: usize, size: usize, spare: usize, read: impl FnOnce() -> T) -> T {
    let before = HELD.load(Relaxed);
    PEAK.store(before, Relaxed);
    let value = read();
    let peak = PEAK.load(Relaxed).saturating_sub(before);
    assert!(peak <= factor * size + spare, "{peak} bytes for {size}");
    value
}

/// Tensors that were read are written and read again, in every form that can carry them: all must agree.
pub fn agree(request: InferRequest) {
    let inputs = request.inputs;
    let response = || InferResponse { id: request.id.clone(), outputs: inputs.clone(), ..Default::default() };
    let wish = |binary_output| InferRequest { binary_output, ..Default::default() };

    // A refusal: NaN, half precision or bytes that are no text, which have no form in JSON.
    if let Ok(encoded) = rest::encode(&response(), &wish(false)) {
        assert_eq!(encoded.header_length, None);
        assert_same(&inputs, rest::decode(&as_request(&encoded.body, &[]).0, None).unwrap());
    }
    let encoded = rest::encode(&response(), &wish(true)).unwrap();
    let (json, data) = encoded.body.split_at(encoded.header_length.unwrap_or(encoded.body.len()));
    let (body, length) = as_request(json, data);
    assert_same(&inputs, rest::decode(&body, Some(length)).unwrap());

    for binary in [false, true] {
        let message = prost::Message::encode_to_vec(&grpc::encode(response(), &wish(binary)));
        let message: proto::ModelInferResponse = prost::Message::decode(&message[..]).unwrap();
        assert_same(&inputs, grpc::decode(request_of(message)).unwrap());
    }
}

fn assert_same(inputs: &[Tensor], request: InferRequest) {
    assert_eq!(inputs, request.inputs);
}

/// A response as the request that sends the same tensors, and the length of its JSON.
fn as_request(json: &[u8], data: &[u8]) -> (Bytes, usize) {
    #[derive(serde::Deserialize)]
    struct Response<'a> {
        #[serde(borrow)]
        outputs: &'a RawValue,
    }
    let response: Response<'_> = serde_json::from_slice(json).unwrap();
    let json = format!(r#"{{"inputs":{}}}"#, response.outputs.get());
    ([json.as_bytes(), data].concat().into(), json.len())
}

fn request_of(message: proto::ModelInferResponse) -> proto::ModelInferRequest {
    let input = |output: proto::model_infer_response::InferOutputTensor| {
        proto::model_infer_request::InferInputTensor {
            name: output.name,
            datatype: output.datatype,
            shape: output.shape,
            contents: output.contents,
            ..Default::default()
        }
    };
    proto::ModelInferRequest {
        inputs: message.outputs.into_iter().map(input).collect(),
        raw_input_contents: message.raw_output_contents,
        ..Default::default()
    }
}
