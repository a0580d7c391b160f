//! The order query by gRPC: the REST query that means the same.

use axum::{Router, http::Method};
use domain::{OrderId, Position};
use service::{
    Problem,
    grpc::{
        self, CALL_BYTES_MAX,
        v1::{
            GetOrderRequest, Order,
            queries_server::{Queries, QueriesServer},
        },
    },
};
use tonic::{Request, Response, Status};

/// The order query of these REST routes.
pub(crate) fn router(rest: Router) -> Router {
    let server = QueriesServer::new(Rest(rest)).max_decoding_message_size(CALL_BYTES_MAX);
    Router::new().route_service("/twelve.v1.Queries/{query}", server)
}

struct Rest(Router);

#[tonic::async_trait]
impl Queries for Rest {
    async fn get_order(&self, request: Request<GetOrderRequest>) -> Result<Response<Order>, Status> {
        let GetOrderRequest { order_id, after } = request.get_ref().clone();
        let order_id: OrderId = order_id.parse().map_err(|_| grpc::refused(&Problem::order_not_found()))?;
        let after: Option<Position> =
            after.map(|after| after.parse()).transpose().map_err(|error: domain::id::InvalidPosition| {
                grpc::refused(&Problem::malformed(error.to_string()))
            })?;
        let after = after.map_or_else(String::new, |after| format!("?after={after}"));
        let path = format!("/orders/{order_id}{after}");
        let answered = grpc::call(&self.0, Method::GET, &path, request, &()).await?;
        let order: Order = serde_json::from_value(answered.body).map_err(|error| {
            tracing::error!(%error, %order_id, "an order does not read as the contract has it");
            grpc::fault("the order does not read as the contract has it")
        })?;
        let mut response = Response::new(order);
        *response.metadata_mut() = answered.metadata;
        Ok(response)
    }
}
