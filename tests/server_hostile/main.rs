//! Bad input against a real server: each is refused with a status and a sentence, and the server serves on.

#[path = "../server_support/mod.rs"]
mod support;

mod compressed;
mod endless;
mod grpc;
mod http;
mod http2;
mod model_files;
mod raw;
mod rest_binary;
mod rest_json;
mod rest_path;
mod slow;
mod table;
