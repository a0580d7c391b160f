//! What gRPC's own tools ask for: whether the process serves (`grpc.health.v1`), and which calls there are
//! (`grpc.reflection.v1` and `v1alpha`).

use std::{pin::Pin, time::Duration};

use anyhow::Context as _;
use axum::{Extension, Router, middleware};
use futures::{Stream, stream};
use tonic::{Request, Response, Status};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse,
    health_check_response::ServingStatus,
    health_server::{Health, HealthServer},
};
use tonic_reflection::server::Builder;

use crate::{limits::GoesOn, process::Readiness};

/// The contract, as the compiler of contracts read it.
const CONTRACT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/twelve.v1.bin"));
/// The services that may be asked about; the empty name is the whole process.
const SERVICES: [&str; 3] = ["", "twelve.v1.Commands", "twelve.v1.Queries"];
/// How often a watcher is told whether the process serves, if that changed.
const WATCH_EVERY: Duration = Duration::from_secs(1);

/// gRPC's health service: serving while `/readyz` is ready.
pub(crate) fn health(readiness: Readiness) -> Router {
    let server = HealthServer::new(Ready(readiness));
    let watch = Router::new().route_service("/grpc.health.v1.Health/Watch", server.clone());
    watch
        .layer(middleware::map_response(async |response: axum::response::Response| {
            (Extension(GoesOn), response)
        }))
        .route_service("/grpc.health.v1.Health/{call}", server)
}

/// gRPC's reflection: `grpcurl` and others need no contract file.
pub(crate) fn reflection() -> anyhow::Result<Router> {
    let builder = || {
        Builder::configure()
            .register_encoded_file_descriptor_set(CONTRACT)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let current = builder().build_v1().context("cannot describe the gRPC contract")?;
    let former = builder().build_v1alpha().context("cannot describe the gRPC contract")?;
    Ok(Router::new()
        .route_service("/grpc.reflection.v1.ServerReflection/{call}", current)
        .route_service("/grpc.reflection.v1alpha.ServerReflection/{call}", former))
}

struct Ready(Readiness);

impl Ready {
    fn status(readiness: &Readiness) -> ServingStatus {
        if readiness().iter().all(|check| check.ok) {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        }
    }
}

const fn told(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status as i32 }
}

#[tonic::async_trait]
impl Health for Ready {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        if !SERVICES.contains(&request.get_ref().service.as_str()) {
            return Err(Status::not_found("this process knows no such service"));
        }
        Ok(Response::new(told(Self::status(&self.0))))
    }

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let is_known = SERVICES.contains(&request.get_ref().service.as_str());
        let readiness = self.0.clone();
        let changes = stream::unfold(None, move |before| {
            let readiness = readiness.clone();
            async move {
                loop {
                    let now = if is_known { Self::status(&readiness) } else { ServingStatus::ServiceUnknown };
                    if before != Some(now) {
                        return Some((Ok(told(now)), Some(now)));
                    }
                    tokio::time::sleep(WATCH_EVERY).await;
                }
            }
        });
        Ok(Response::new(Box::pin(changes)))
    }
}
