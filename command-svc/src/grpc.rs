//! The commands by gRPC: each is the REST call that means the same.

use axum::{
    Router,
    http::{Method, StatusCode},
};
use domain::OrderId;
use serde::Serialize;
use serde_json::{Value, json};
use service::{
    Problem,
    grpc::{
        self, CALL_BYTES_MAX,
        v1::{
            Accepted, OrderRequest, PayOrderRequest, PickUpDeliveryRequest, PlaceOrderRequest, ReasonRequest,
            WriteReviewRequest,
            commands_server::{Commands, CommandsServer},
        },
    },
};
use tonic::{Request, Response, Status};

/// The commands of these REST routes.
pub fn router(rest: Router) -> Router {
    let server = CommandsServer::new(Rest(rest)).max_decoding_message_size(CALL_BYTES_MAX);
    Router::new().route_service("/twelve.v1.Commands/{command}", server)
}

struct Rest(Router);

impl Rest {
    async fn post<M: Sync>(
        &self,
        path: &str,
        request: Request<M>,
        body: &impl Serialize,
    ) -> Result<Response<Accepted>, Status> {
        let answered = grpc::call(&self.0, Method::POST, path, request, body).await?;
        let text = |name: &str| answered.body[name].as_str().map(ToOwned::to_owned);
        let accepted = Accepted {
            order_id: text("order_id").unwrap_or_default(),
            flow: text("flow"),
            status: text("status").unwrap_or_default(),
            position: text("position").unwrap_or_default(),
            durability: answered.header("durability").to_owned(),
            replayed: answered.header("idempotency-replayed") == "true",
            pending: answered.status == StatusCode::ACCEPTED,
        };
        let mut response = Response::new(accepted);
        *response.metadata_mut() = answered.metadata;
        Ok(response)
    }

    /// A command on an order, at `what` below it.
    async fn on_order<M: Sync>(
        &self,
        order_id: &str,
        what: &str,
        request: Request<M>,
        body: Value,
    ) -> Result<Response<Accepted>, Status> {
        // What is no id names no order; and nothing else may get into a path.
        let order_id: OrderId = order_id.parse().map_err(|_| grpc::refused(&Problem::order_not_found()))?;
        self.post(&format!("/orders/{order_id}/{what}"), request, &body).await
    }

    async fn bare(&self, what: &str, request: Request<OrderRequest>) -> Result<Response<Accepted>, Status> {
        let order_id = request.get_ref().order_id.clone();
        self.on_order(&order_id, what, request, json!({})).await
    }

    async fn reasoned(
        &self,
        what: &str,
        request: Request<ReasonRequest>,
    ) -> Result<Response<Accepted>, Status> {
        let (order_id, reason) = (request.get_ref().order_id.clone(), request.get_ref().reason.clone());
        let body = reason.map_or_else(|| json!({}), |reason| json!({ "reason": reason }));
        self.on_order(&order_id, what, request, body).await
    }
}

type Answer = Result<Response<Accepted>, Status>;

#[tonic::async_trait]
impl Commands for Rest {
    async fn place_order(&self, request: Request<PlaceOrderRequest>) -> Answer {
        let placement = request.get_ref().clone();
        self.post("/orders", request, &placement).await
    }

    async fn pay_order(&self, request: Request<PayOrderRequest>) -> Answer {
        let (order_id, means) = (request.get_ref().order_id.clone(), request.get_ref().payment.clone());
        self.on_order(&order_id, "payment", request, json!(means.unwrap_or_default())).await
    }

    async fn cancel_order(&self, request: Request<ReasonRequest>) -> Answer {
        self.reasoned("cancel", request).await
    }

    async fn confirm_order(&self, request: Request<OrderRequest>) -> Answer {
        self.bare("confirm", request).await
    }

    async fn return_order(&self, request: Request<ReasonRequest>) -> Answer {
        self.reasoned("return", request).await
    }

    async fn write_review(&self, request: Request<WriteReviewRequest>) -> Answer {
        let WriteReviewRequest { order_id, rating, text } = request.get_ref().clone();
        self.on_order(&order_id, "review", request, json!({ "rating": rating, "text": text })).await
    }

    async fn accept_store_order(&self, request: Request<OrderRequest>) -> Answer {
        self.bare("store/accept", request).await
    }

    async fn reject_store_order(&self, request: Request<ReasonRequest>) -> Answer {
        self.reasoned("store/reject", request).await
    }

    async fn start_preparation(&self, request: Request<OrderRequest>) -> Answer {
        self.bare("store/start", request).await
    }

    async fn finish_preparation(&self, request: Request<OrderRequest>) -> Answer {
        self.bare("store/finish", request).await
    }

    async fn pick_up_delivery(&self, request: Request<PickUpDeliveryRequest>) -> Answer {
        let PickUpDeliveryRequest { order_id, rider_id } = request.get_ref().clone();
        self.on_order(&order_id, "delivery/pickup", request, json!({ "rider_id": rider_id })).await
    }

    async fn start_delivery(&self, request: Request<OrderRequest>) -> Answer {
        self.bare("delivery/start", request).await
    }

    async fn complete_delivery(&self, request: Request<OrderRequest>) -> Answer {
        self.bare("delivery/complete", request).await
    }

    async fn cancel_delivery(&self, request: Request<OrderRequest>) -> Answer {
        self.bare("delivery/cancel", request).await
    }

    async fn pick_up_return(&self, request: Request<OrderRequest>) -> Answer {
        self.bare("return/pickup", request).await
    }

    async fn complete_return(&self, request: Request<OrderRequest>) -> Answer {
        self.bare("return/complete", request).await
    }

    async fn resume_saga(&self, request: Request<OrderRequest>) -> Answer {
        let order_id: Result<OrderId, _> = request.get_ref().order_id.parse();
        let order_id = order_id.map_err(|_| grpc::refused(&Problem::order_not_found()))?;
        self.post(&format!("/sagas/{order_id}/resume"), request, &json!({})).await
    }
}
