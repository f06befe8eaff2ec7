//! The originals are ONNX Runtime 1.31's own words.

use super::*;

const FOLDER: &str = "/models/revisions/m-r1";

#[test]
fn a_load_error_gets_its_reason_and_a_sentence() {
    for (original, reason, message) in [
        (
            "External data path validation failed for initializer: w. Error: External data path escapes model \
             directory. External data path: \"../secret\" resolved path: \"/models/secret\" allowed directory: \
             \"/models/revisions/m-r1\"",
            Reason::ModelInvalid,
            "External data path validation failed for initializer: w. Error: External data path escapes model \
             directory. External data path: \"../secret\"",
        ),
        (
            "Load model from /models/revisions/m-r1/model.onnx failed:This is an invalid model. In Node, (\"\", \
             Frobnicate, \"\", -1) : (\"x\": tensor(float),) -> (\"y\": tensor(float),) , Error No Op registered for \
             Frobnicate with domain_version of 17",
            Reason::ModelInvalid,
            "operator Frobnicate is not known to ONNX Runtime at opset 17",
        ),
        (
            "Load model from /models/revisions/m-r1/model.onnx failed:Fatal error: com.acme:Frob(-1) is not a \
             registered function/op",
            Reason::ModelInvalid,
            "operator Frob of domain com.acme is not known to ONNX Runtime",
        ),
        (
            "Load model from /models/revisions/m-r1/model.onnx failed:/onnxruntime_src/onnxruntime/core/graph/\
             model_load_utils.h:46 void onnxruntime::model_load_utils::ValidateOpsetForDomain(const \
             std::unordered_map<std::__cxx11::basic_string<char>, int>&, const onnxruntime::logging::Logger&, bool, \
             const std::string&, int) ONNX Runtime only *guarantees* support for models stamped with official \
             released onnx opset versions. Opset 99 is under development and support for this is limited. Current \
             official support for domain ai.onnx is till opset 26.\n",
            Reason::OpsetUnsupported,
            "ONNX Runtime only *guarantees* support for models stamped with official released onnx opset versions. \
             Opset 99 is under development and support for this is limited. Current official support for domain \
             ai.onnx is till opset 26.",
        ),
        (
            "Load model from /models/revisions/m-r1/model.onnx failed:/onnxruntime_src/onnxruntime/core/graph/\
             model.cc:256 onnxruntime::Model::Model(onnx::ModelProto&&, const onnxruntime::PathString&, const \
             onnxruntime::IOnnxRuntimeOpSchemaRegistryList*, const onnxruntime::logging::Logger&, const \
             onnxruntime::ModelOptions&) Unsupported model IR version: 99, max supported IR version: 13\n",
            Reason::OpsetUnsupported,
            "Unsupported model IR version: 99, max supported IR version: 13",
        ),
        (
            "Load model from /models/revisions/m-r1/model.onnx failed:Protobuf parsing failed.",
            Reason::ModelInvalid,
            "the file is not an ONNX model, or is truncated (protobuf parsing failed)",
        ),
        (
            "External data path validation failed for initializer: w. Error: tensorprotoutils.cc:461 \
             ValidateExternalDataPathFromDir External data path does not exist: \
             \"/models/revisions/m-r1/missing.bin\"",
            Reason::ModelInvalid,
            "External data path validation failed for initializer: w. Error: ValidateExternalDataPathFromDir \
             External data path does not exist: \"missing.bin\"",
        ),
        (
            "Exception during initialization: std::bad_alloc",
            Reason::OutOfMemory,
            "ONNX Runtime could not allocate memory for the model: Exception during initialization: std::bad_alloc",
        ),
    ] {
        let error = load_error(original, FOLDER, false);
        assert_eq!((error.reason, error.message.as_str()), (reason, message));
    }
    let gpu = load_error("Failed to allocate memory for requested buffer of size 1", FOLDER, true);
    assert_eq!(gpu.reason, Reason::InsufficientGpuMemory);
}

#[test]
fn a_run_error_says_whose_fault_it_is() {
    let broadcast = "Non-zero status code returned while running Add node. Name:'' Status Message: \
                     /onnxruntime_src/onnxruntime/core/providers/cpu/math/element_wise_ops.h:563 void \
                     onnxruntime::BroadcastIterator::Init(ptrdiff_t, ptrdiff_t) axis == 1 || axis == largest was false. \
                     Attempting to broadcast an axis by a dimension other than 1. 2 by 3\n";
    let RunError::Refused(text) = run_error(broadcast) else { panic!() };
    assert!(text.ends_with("Attempting to broadcast an axis by a dimension other than 1. 2 by 3"), "{text}");
    assert!(!text.contains("onnxruntime_src"), "{text}");
    assert!(matches!(run_error("CUDA failure 700: an illegal memory access"), RunError::Poisoned(_)));
    assert!(matches!(run_error("Failed to allocate memory for requested buffer"), RunError::OutOfMemory(_)));
    assert!(matches!(run_error("something else"), RunError::Failed(_)));
}

#[test]
fn addresses_traces_and_endless_text_are_cut() {
    assert_eq!(clean("bad at 0x7f00aa11bb22 here\nStacktrace: foo", ""), "bad at here");
    assert!(clean(&"ü".repeat(5000), "").len() < 1100);
    for odd in
        ["/onnxruntime_src/x", "/onnxruntime_src/x.cc:1 f(", "/onnxruntime_src//onnxruntime_src/", "((("]
    {
        clean(odd, "");
    }
}
