//! A collector of traces: the real protocol (OTLP by gRPC), and a memory.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::any_value,
    resource::v1::Resource,
};
use tonic::{Request, Response, Status, transport::Server};

use crate::{LIMIT, free_port};

/// A span, as it was sent.
#[derive(Clone, Debug)]
pub struct Span {
    pub service: String,
    pub name: String,
    /// 32 hex digits.
    pub trace: String,
    pub id: String,
    /// Empty: it is the first of its trace.
    pub parent: String,
}

/// A collector that runs until the test ends.
#[derive(Clone, Default)]
pub struct Collector {
    url: String,
    spans: Arc<Mutex<Vec<Span>>>,
}

fn hex(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from_digit(value.into(), 16).unwrap_or_default();
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

fn service(resource: Option<&Resource>) -> String {
    let attributes = resource.map(|resource| resource.attributes.as_slice()).unwrap_or_default();
    let name = attributes.iter().find(|attribute| attribute.key == "service.name");
    match name.and_then(|name| name.value.as_ref()?.value.as_ref()) {
        Some(any_value::Value::StringValue(name)) => name.clone(),
        _ => String::new(),
    }
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut spans = self.spans.lock().unwrap_or_else(PoisonError::into_inner);
        for of_service in request.into_inner().resource_spans {
            let service = service(of_service.resource.as_ref());
            for span in of_service.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                spans.push(Span {
                    service: service.clone(),
                    name: span.name,
                    trace: hex(&span.trace_id),
                    id: hex(&span.span_id),
                    parent: hex(&span.parent_span_id),
                });
            }
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    pub fn start() -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let collector = Self { url: format!("http://{address}"), spans: Arc::default() };
        let serving =
            Server::builder().add_service(TraceServiceServer::new(collector.clone())).serve(address);
        tokio::spawn(serving);
        collector
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// The spans of a trace so far.
    pub fn of(&self, trace: &str) -> Vec<Span> {
        let spans = self.spans.lock().unwrap_or_else(PoisonError::into_inner);
        spans.iter().filter(|span| span.trace == trace).cloned().collect()
    }

    /// Waits until the trace has a span of each of these names, and answers with all that it has then.
    pub async fn until(&self, trace: &str, names: &[&str]) -> Vec<Span> {
        let waiting = async {
            loop {
                let spans = self.of(trace);
                if names.iter().all(|name| spans.iter().any(|span| span.name == *name)) {
                    return spans;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let waited = tokio::time::timeout(LIMIT, waiting).await;
        waited.unwrap_or_else(|_| panic!("spans {names:?}; there are {:#?}", self.of(trace)))
    }
}
