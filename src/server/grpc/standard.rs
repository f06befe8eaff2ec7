//! gRPC's own services: health, overall and by model, and reflection.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue};
use axum::middleware::{Next, from_fn};
use hyper::body::Frame;
use tokio::sync::watch;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::WatchStream;
use tonic::{Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::Phase;
use crate::protocol::grpc::DESCRIPTORS;
use crate::server::model::Server;

pub fn router(server: Arc<Server>, phase: watch::Receiver<Phase>) -> Router {
    let mut routes = tonic::service::Routes::new(HealthServer::new(Service(server)));
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1();
    match reflection {
        Ok(reflection) => routes = routes.add_service(reflection),
        // Both sets are compiled in; a test asks for them.
        Err(error) => tracing::warn!(%error, "no gRPC reflection"),
    }
    let ends = move |request: Request, next: Next| {
        let mut phase = phase.clone();
        async move {
            let closing = async move {
                // A sender that is gone has nothing more to serve.
                let _ = phase.wait_for(|p| *p == Phase::Closing).await;
            };
            let closing = Box::pin(closing);
            next.run(request).await.map(|body| Body::new(Ends { body, closing, ended: false }))
        }
    };
    routes.into_axum_router().reset_fallback().layer(from_fn(ends))
}

struct Service(Arc<Server>);

impl Service {
    /// The server as a whole has no name; its service and its model have theirs.
    fn knows(&self, name: &str) -> bool {
        ["", "inference.GRPCInferenceService", &self.0.identity.name].contains(&name)
    }
}

fn answer(ready: bool) -> HealthCheckResponse {
    let status = if ready { ServingStatus::Serving } else { ServingStatus::NotServing };
    HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl Health for Service {
    async fn check(
        &self,
        request: tonic::Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        match self.knows(&request.get_ref().service) {
            true => Ok(Response::new(answer(self.0.is_ready()))),
            false => Err(Status::not_found("unknown service: name the model, or nothing")),
        }
    }

    type WatchStream = Pin<Box<dyn tokio_stream::Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(
        &self,
        request: tonic::Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let known = self.knows(&request.get_ref().service);
        let states = WatchStream::new(self.0.readiness()).map(move |ready| match known {
            true => Ok(answer(ready)),
            // The protocol's word for it: the name may be known later.
            false => Ok(HealthCheckResponse { status: ServingStatus::ServiceUnknown.into() }),
        });
        Ok(Response::new(Box::pin(states)))
    }
}

/// These streams last as long as their client likes: they end with the server, not after its grace period.
struct Ends {
    body: Body,
    closing: Pin<Box<dyn Future<Output = ()> + Send>>,
    ended: bool,
}

impl HttpBody for Ends {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if self.closing.as_mut().poll(context).is_ready() {
            self.ended = true;
            const UNAVAILABLE: HeaderValue = HeaderValue::from_static("14");
            let trailers = HeaderMap::from_iter([(tonic::Status::GRPC_STATUS, UNAVAILABLE)]);
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        // Not polled again once it has ended.
        self.ended = frame.is_none();
        Poll::Ready(frame)
    }

    /// An error is an answer of headers alone, and clients must see that nothing follows.
    fn is_end_stream(&self) -> bool {
        self.ended || self.body.is_end_stream()
    }
}
