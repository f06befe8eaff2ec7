//! Compiles the gRPC messages, for the server with the service, for the gateway alone.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(any(feature = "server", feature = "gateway"))]
    protocol::messages()?;
    Ok(())
}

#[cfg(any(feature = "server", feature = "gateway"))]
mod protocol {
    use std::path::PathBuf;

    use prost::Message;

    const PROTO: &str = "src/protocol/open_inference_grpc.proto";
    /// Triton's extensions have one form for both protocols: on REST, the same messages are written as JSON.
    const JSON: [&str; 11] = [
        ".inference.ModelConfig",
        ".inference.ModelInput",
        ".inference.ModelOutput",
        ".inference.ModelVersionPolicy",
        ".inference.ModelDynamicBatching",
        ".inference.ModelStatisticsResponse",
        ".inference.ModelStatistics",
        ".inference.InferStatistics",
        ".inference.InferBatchStatistics",
        ".inference.StatisticDuration",
        ".inference.RepositoryIndexResponse",
    ];

    pub fn messages() -> Result<(), Box<dyn std::error::Error>> {
        println!("cargo::rerun-if-changed={PROTO}");
        let mut files = protox::compile([PROTO], ["src/protocol"])?;
        let mut builder = tonic_prost_build::configure()
            .bytes(".inference.ModelInferRequest.raw_input_contents")
            .bytes(".inference.ModelInferResponse.raw_output_contents")
            .bytes(".inference.InferTensorContents.bytes_contents")
            .codec_path("crate::server::codec::BoundedCodec")
            .build_client(cfg!(feature = "server"))
            .build_server(cfg!(feature = "server"))
            .build_transport(false); // no tonic client or server transport: the listener is ours
        for message in JSON {
            builder = builder.type_attribute(message, "#[derive(serde::Serialize)]");
        }
        for field in [".inference.ModelInput.data_type", ".inference.ModelOutput.data_type"] {
            builder = builder.field_attribute(field, "#[serde(serialize_with = \"data_type_name\")]");
        }
        builder = builder.field_attribute(
            ".inference.ModelConfig.dynamic_batching",
            "#[serde(skip_serializing_if = \"Option::is_none\")]",
        );
        builder.compile_fds(files.clone())?;

        // What gRPC reflection answers.
        for file in &mut files.file {
            file.source_code_info = None;
        }
        let out = PathBuf::from(std::env::var("OUT_DIR")?).join("inference.descriptors");
        std::fs::write(out, files.encode_to_vec())?;
        Ok(())
    }
}
