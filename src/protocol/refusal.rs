//! What Triton does and we do not: refused with a sentence that says what to do instead.

const STREAM: &str = "streams are not supported: each request has one answer; call ModelInfer";
const GENERATE: &str = "the generate extension is not supported: send tensors to infer";
const SHARED_MEMORY: &str =
    "shared memory is not supported: clients run elsewhere; send tensors as binary data or raw contents";
const REPOSITORY: &str =
    "models are not loaded by requests: change the ModelDeployment, or the server's --model";
const TRACE: &str = "traces are not set up by requests: they are when the server starts";
const LOG: &str = "logs are not set up by requests: set RUST_LOG when the server starts";

/// gRPC methods, by name.
pub const METHODS: [(&str, &str); 11] = [
    ("ModelStreamInfer", STREAM),
    ("SystemSharedMemoryStatus", SHARED_MEMORY),
    ("SystemSharedMemoryRegister", SHARED_MEMORY),
    ("SystemSharedMemoryUnregister", SHARED_MEMORY),
    ("CudaSharedMemoryStatus", SHARED_MEMORY),
    ("CudaSharedMemoryRegister", SHARED_MEMORY),
    ("CudaSharedMemoryUnregister", SHARED_MEMORY),
    ("RepositoryModelLoad", REPOSITORY),
    ("RepositoryModelUnload", REPOSITORY),
    ("TraceSetting", TRACE),
    ("LogSettings", LOG),
];

/// Of a gRPC method's name.
pub fn of_method(name: &str) -> Option<&'static str> {
    METHODS.iter().find(|(method, _)| *method == name).map(|(_, message)| *message)
}

/// What is said of a path of Triton's; none: it is nobody's.
pub fn of_path(path: &str) -> Option<&'static str> {
    // Longer than any path of the protocol.
    let segments: Vec<&str> = path.split('/').skip(1).take(8).collect();
    Some(match segments.as_slice() {
        ["v2", "models", .., "generate" | "generate_stream"] => GENERATE,
        ["v2", "systemsharedmemory" | "cudasharedmemory", ..] => SHARED_MEMORY,
        ["v2", "repository", .., "load" | "unload"] => REPOSITORY,
        ["v2", "trace", ..] | ["v2", "models", .., "trace", "setting"] => TRACE,
        ["v2", "logging"] => LOG,
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
