//! A gRPC client without a transport of tonic's.

use hyper::Uri;
use hyper_util::rt::{TokioExecutor, TokioIo};
use modelwright::protocol::grpc::proto::grpc_inference_service_client::GrpcInferenceServiceClient;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tonic::body::Body;
use tower::util::BoxCloneService;

pub type Channel =
    BoxCloneService<hyper::Request<Body>, hyper::Response<hyper::body::Incoming>, hyper::Error>;

pub async fn connect(port: u16) -> GrpcInferenceServiceClient<Channel> {
    open(port).await.0
}

/// The second half ends when the connection does.
pub async fn open(port: u16) -> (GrpcInferenceServiceClient<Channel>, JoinHandle<hyper::Result<()>>) {
    let (channel, origin, connection) = channel(port).await;
    let client = GrpcInferenceServiceClient::with_origin(channel, origin)
        .max_decoding_message_size(usize::MAX)
        .max_encoding_message_size(usize::MAX);
    (client, connection)
}

/// For a client of any service.
pub async fn channel(port: u16) -> (Channel, Uri, JoinHandle<hyper::Result<()>>) {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let channel = tower::service_fn(move |request| {
        let mut sender = sender.clone();
        async move { sender.send_request(request).await }
    });
    (BoxCloneService::new(channel), format!("http://127.0.0.1:{port}").parse().unwrap(), connection)
}
