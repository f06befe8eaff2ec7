//! The gRPC skin.

mod standard;

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::Request as AxumRequest;
use axum::http::HeaderMap;
use axum::routing::post;
use tokio::sync::watch;
use tonic::codec::CompressionEncoding;
use tonic::{Request, Response, Status};

use super::metrics::{OK, Protocol};
use super::model::Server;
use super::queue::{Deadline, RETRY_AFTER};
use crate::bodies::{Share, join};
use crate::listen::Phase;
use crate::protocol::grpc::proto::grpc_inference_service_server::{
    GrpcInferenceService, GrpcInferenceServiceServer,
};
use crate::protocol::grpc::{decode, encode, proto};
use crate::protocol::{Error, Kind, grpc_timeout, refusal};

pub fn router(server: Arc<Server>, phase: watch::Receiver<Phase>) -> Router {
    let limit = server.max_request_bytes;
    let standard = standard::router(server.clone(), phase);
    let service = GrpcInferenceServiceServer::new(Service(server))
        .accept_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Deflate)
        .send_compressed(CompressionEncoding::Gzip)
        .send_compressed(CompressionEncoding::Deflate)
        // Of a message, and of what a compressed one unpacks to.
        .max_decoding_message_size(limit)
        // An answer is as large as the model makes it.
        .max_encoding_message_size(usize::MAX);
    let mut router = tonic::service::Routes::new(service).into_axum_router().reset_fallback();
    for (method, message) in refusal::METHODS {
        let refuse = move || async move { failure(Error::new(Kind::MethodNotAllowed, message)) };
        router = router.route(&format!("/inference.GRPCInferenceService/{method}"), post(refuse));
    }
    router.merge(standard)
}

struct Service(Arc<Server>);

fn status(error: Error) -> Status {
    let unavailable = error.kind == Kind::Unavailable;
    let mut status = Status::from(error);
    if unavailable {
        let seconds = RETRY_AFTER.as_secs().into();
        status.metadata_mut().insert("retry-after", seconds);
    }
    status
}

#[tonic::async_trait]
impl GrpcInferenceService for Service {
    async fn server_live(
        &self,
        _: Request<proto::ServerLiveRequest>,
    ) -> Result<Response<proto::ServerLiveResponse>, Status> {
        Ok(Response::new(proto::ServerLiveResponse { live: true }))
    }

    async fn server_ready(
        &self,
        _: Request<proto::ServerReadyRequest>,
    ) -> Result<Response<proto::ServerReadyResponse>, Status> {
        Ok(Response::new(proto::ServerReadyResponse { ready: self.0.is_ready() }))
    }

    async fn model_ready(
        &self,
        request: Request<proto::ModelReadyRequest>,
    ) -> Result<Response<proto::ModelReadyResponse>, Status> {
        let request = request.into_inner();
        self.0.check_name(&request.name, Some(&request.version)).map_err(status)?;
        Ok(Response::new(proto::ModelReadyResponse { ready: self.0.is_ready() }))
    }

    async fn server_metadata(
        &self,
        _: Request<proto::ServerMetadataRequest>,
    ) -> Result<Response<proto::ServerMetadataResponse>, Status> {
        let metadata = self.0.metadata();
        Ok(Response::new(proto::ServerMetadataResponse {
            name: metadata.name,
            version: metadata.version,
            extensions: metadata.extensions,
        }))
    }

    async fn model_metadata(
        &self,
        request: Request<proto::ModelMetadataRequest>,
    ) -> Result<Response<proto::ModelMetadataResponse>, Status> {
        let request = request.into_inner();
        self.0.check_name(&request.name, Some(&request.version)).map_err(status)?;
        Ok(Response::new(self.0.model_metadata().map_err(status)?.into()))
    }

    async fn model_infer(
        &self,
        request: Request<proto::ModelInferRequest>,
    ) -> Result<Response<proto::ModelInferResponse>, Status> {
        let flight = self.0.metrics.begin(Protocol::Grpc);
        let timeout = grpc_timeout(request.metadata().as_ref());
        let result = self.answer(request.into_inner(), flight.started, timeout).await;
        flight.end(result.as_ref().map_or_else(|e| e.kind.outcome(), |_| OK));
        result.map(Response::new).map_err(status)
    }

    async fn model_config(
        &self,
        request: Request<proto::ModelConfigRequest>,
    ) -> Result<Response<proto::ModelConfigResponse>, Status> {
        let request = request.into_inner();
        self.0.check_name(&request.name, Some(&request.version)).map_err(status)?;
        let config = self.0.model_config().map_err(status)?;
        Ok(Response::new(proto::ModelConfigResponse { config: Some(config) }))
    }

    async fn model_statistics(
        &self,
        request: Request<proto::ModelStatisticsRequest>,
    ) -> Result<Response<proto::ModelStatisticsResponse>, Status> {
        let request = request.into_inner();
        if !request.name.is_empty() {
            self.0.check_name(&request.name, Some(&request.version)).map_err(status)?;
        }
        Ok(Response::new(self.0.model_statistics()))
    }

    async fn repository_index(
        &self,
        request: Request<proto::RepositoryIndexRequest>,
    ) -> Result<Response<proto::RepositoryIndexResponse>, Status> {
        let models = self.0.repository_index(request.into_inner().ready);
        Ok(Response::new(proto::RepositoryIndexResponse { models }))
    }
}

impl Service {
    async fn answer(
        &self,
        message: proto::ModelInferRequest,
        started: Instant,
        timeout: Option<Duration>,
    ) -> Result<proto::ModelInferResponse, Error> {
        self.0.check_name(&message.model_name, Some(&message.model_version))?;
        let statistics = &self.0.metrics.statistics;
        let mut request = decode(message)?;
        statistics.decoded(started.elapsed());
        let allowed = self.0.allowed(timeout).min(self.0.allowed(request.timeout));
        let response = self.0.infer(&mut request, Deadline::new(started, allowed)).await?;
        let ran = Instant::now();
        let answer = encode(response, &request);
        statistics.encoded(ran.elapsed());
        Ok(answer)
    }
}

/// Whether a request is gRPC, by its media type.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get("content-type").is_some_and(|v| v.as_bytes().starts_with(b"application/grpc"))
}

/// A status as a whole HTTP response.
pub fn failure(error: Error) -> axum::response::Response {
    status(error).into_http()
}

/// Clients' libraries say of every request which compressions they know: answers are compressed where the request was.
pub fn compress_like_the_request(headers: &mut HeaderMap) {
    if !headers.contains_key("grpc-encoding") {
        headers.remove("grpc-accept-encoding");
    }
}

/// Whether a method takes one message: streams, such as reflection's, are answered while they come.
pub fn is_unary(path: &str) -> bool {
    path.strip_prefix("/inference.GRPCInferenceService/").is_some_and(|method| method != "ModelStreamInfer")
}

/// The request with its message in hand. tonic would give memory for whatever size the message's prefix announces, so
/// that a few bytes on many streams exhaust it.
pub async fn whole(request: AxumRequest, limit: usize, share: &mut Share) -> Result<AxumRequest, Error> {
    const PREFIX: usize = 5;
    /// deflate packs no tighter.
    const TIGHTEST: usize = 1032;
    let (head, body) = request.into_parts();
    let body = join(body, limit + PREFIX, share).await.map_err(|e| match e.kind {
        Kind::TooLarge => Error::too_large(limit),
        _ => e,
    })?;
    if let Some((&[_, length @ ..], message)) = body.split_first_chunk::<PREFIX>() {
        let announced = u32::from_be_bytes(length) as usize;
        if announced > limit {
            return Err(Error::too_large(limit));
        }
        if announced != message.len() {
            let came = message.len();
            return Err(Error::invalid(format!("the message announces {announced} bytes, and {came} came")));
        }
        if head.headers.contains_key("grpc-encoding") {
            share.take(announced.saturating_mul(TIGHTEST).min(limit))?;
        }
    }
    Ok(AxumRequest::from_parts(head, body.into()))
}

/// What tonic says in other words than gRPC's own libraries, or blames on us. Some: an answer in place of tonic's.
/// `packed`: the request names a compression.
pub fn reworded(headers: &mut HeaderMap, packed: bool) -> Option<axum::response::Response> {
    const OUT_OF_RANGE: &str = "11";
    const RESOURCE_EXHAUSTED: &str = "8";
    const INTERNAL: &str = "13";
    let said =
        |text: &str| headers.get("grpc-message").is_some_and(|v| v.as_bytes().starts_with(text.as_bytes()));
    let status = headers.get("grpc-status")?;
    if status == OUT_OF_RANGE {
        headers.insert("grpc-status", axum::http::HeaderValue::from_static(RESOURCE_EXHAUSTED));
    } else if status == INTERNAL && packed && said("Error%20decompressing") {
        let message = "the message can't be unpacked: it is damaged, or not compressed as grpc-encoding says";
        return Some(failure(Error::invalid(message)));
    }
    None
}
