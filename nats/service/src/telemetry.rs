//! What a process tells of itself while it runs: log lines to standard error, and spans to a collector.

use std::{io::IsTerminal, time::Duration};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use opentelemetry::{KeyValue, trace::TracerProvider};
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::{
    Resource,
    trace::{BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider},
};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{
    EnvFilter, Layer, Registry, filter::Targets, layer::SubscriberExt, util::SubscriberInitExt,
};

use crate::settings;

/// How long a collector may take for one batch of spans, and for the last one.
const EXPORT_MAX: Duration = Duration::from_secs(3);
/// How often spans are sent.
const EXPORT_EVERY: Duration = Duration::from_secs(1);
/// Spans that wait for the collector; more are dropped, and calls go on.
const SPANS_WAITING_MAX: usize = 8_192;
/// Whose spans are sent.
const OURS: [&str; 6] = ["service", "nats", "command_svc", "projector", "query_api", "twelve"];

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum LogFormat {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

/// What a process tells, and where.
#[derive(Args, Clone, Debug)]
pub struct TelemetrySettings {
    /// What to log: a level, or per module (`info,nats=debug`)
    #[arg(
        long,
        env = "TWELVE_LOG",
        value_name = "FILTER",
        default_value = "info,async_nats=warn",
        global = true
    )]
    pub log: String,
    /// How to write log lines
    #[arg(long, env = "TWELVE_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text, global = true)]
    pub log_format: LogFormat,
    /// The collector of traces, which takes OTLP by gRPC, for example `http://127.0.0.1:4317`; without one, none are
    /// sent
    #[arg(long, env = "TWELVE_OTLP", value_name = "URL", global = true, value_parser = settings::http_url)]
    pub otlp: Option<String>,
    /// Per cent of traces to send, of those that begin here; a caller who traces decides for theirs
    #[arg(long, env = "TWELVE_TRACE_PERCENT", value_name = "PERCENT", default_value_t = 100, global = true,
          value_parser = clap::value_parser!(u8).range(0..=100))]
    pub trace_percent: u8,
}

/// Sends what is left when it is dropped, for a moment.
#[must_use = "spans that wait are sent when it is dropped, at the end of the process"]
pub struct Telemetry(Option<SdkTracerProvider>);

impl Drop for Telemetry {
    fn drop(&mut self) {
        if let Some(provider) = self.0.take()
            && let Err(error) = provider.shutdown_with_timeout(EXPORT_MAX)
        {
            tracing::debug!(%error, "the last spans were not sent");
        }
    }
}

impl TelemetrySettings {
    /// Begins to tell, as set, in the name of `service`.
    pub fn start(&self, service: &'static str) -> anyhow::Result<Telemetry> {
        let filter = EnvFilter::try_new(&self.log).with_context(|| format!("--log {:?}", self.log))?;
        let lines = tracing_subscriber::fmt::layer()
            .with_ansi(std::io::stderr().is_terminal())
            // Where standard error is closed, saying so there would panic.
            .log_internal_errors(false)
            .with_writer(std::io::stderr);
        let lines = match self.log_format {
            LogFormat::Text => lines.boxed(),
            LogFormat::Json => lines.json().flatten_event(true).boxed(),
        };
        let provider = self.otlp.as_deref().map(|url| self.provider(url, service)).transpose()?;
        let spans = provider.as_ref().map(|provider| {
            let layer = tracing_opentelemetry::layer::<Registry>()
                .with_tracer(provider.tracer("twelve"))
                .with_location(false)
                .with_threads(false);
            layer.with_filter(Targets::new().with_targets(OURS.map(|target| (target, LevelFilter::INFO))))
        });
        tracing_subscriber::registry().with(spans).with(lines.with_filter(filter)).try_init()?;
        if provider.is_some() {
            nats::trace::set_on();
        }
        Ok(Telemetry(provider))
    }

    fn provider(&self, url: &str, service: &'static str) -> anyhow::Result<SdkTracerProvider> {
        let exporter = SpanExporter::builder()
            .with_tonic()
            .with_endpoint(url)
            .with_timeout(EXPORT_MAX)
            .build()
            .with_context(|| format!("--otlp {url:?}"))?;
        let waiting = BatchConfigBuilder::default()
            .with_max_queue_size(SPANS_WAITING_MAX)
            .with_scheduled_delay(EXPORT_EVERY)
            .build();
        let here = Sampler::TraceIdRatioBased(f64::from(self.trace_percent) / 100.0);
        let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
        let resource = Resource::builder().with_service_name(service).with_attribute(version).build();
        Ok(SdkTracerProvider::builder()
            .with_span_processor(BatchSpanProcessor::builder(exporter).with_batch_config(waiting).build())
            .with_sampler(Sampler::ParentBased(Box::new(here)))
            .with_resource(resource)
            .build())
    }
}
