//! The graph of an ONNX model, read as a stream.
