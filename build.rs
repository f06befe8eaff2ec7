//! Compiles the gRPC messages; only the server needs them.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "server")]
    {
        const PROTO: &str = "src/protocol/open_inference_grpc.proto";
        println!("cargo::rerun-if-changed={PROTO}");
        let files = protox::compile([PROTO], ["src/protocol"])?;
        tonic_prost_build::configure()
            .bytes(".inference.ModelInferRequest.raw_input_contents")
            .bytes(".inference.ModelInferResponse.raw_output_contents")
            .bytes(".inference.InferTensorContents.bytes_contents")
            .build_transport(false) // no tonic client or server transport: the listener is ours
            .compile_fds(files)?;
    }
    Ok(())
}
