//! Traces across processes: a span here goes on where another ended, by its W3C trace context.
//!
//! The context travels as the `traceparent` header of HTTP calls, of commands between contexts and of events. Where no
//! collector is set, spans are not sent anywhere, and the caller's context is handed on as it came.

use std::sync::atomic::{AtomicBool, Ordering};

use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

static IS_ON: AtomicBool = AtomicBool::new(false);

/// Whether spans are sent to a collector. What makes spans only for that asks first.
pub fn is_on() -> bool {
    IS_ON.load(Ordering::Relaxed)
}

/// From here on spans are sent to a collector.
pub fn set_on() {
    IS_ON.store(true, Ordering::Relaxed);
}

/// Has a span that nobody entered yet go on where `trace_parent` says.
pub fn go_on(span: &Span, trace_parent: Option<&str>) {
    if let Some(parent) = trace_parent.filter(|_| is_on()).and_then(parse) {
        let context = opentelemetry::Context::new().with_remote_span_context(parent);
        // A span that is not sampled, or filtered away, has no parent to set.
        drop(span.set_parent(context));
    }
}

/// A span that is made for the collector only, and goes on where `trace_parent` says, or in the current span.
pub fn span(trace_parent: Option<&str>, make: impl FnOnce() -> Span) -> Span {
    if !is_on() {
        return Span::none();
    }
    let span = make();
    go_on(&span, trace_parent);
    span
}

/// The context for what the current span leads to; `None` where no span is sent anywhere.
pub fn current() -> Option<String> {
    if !is_on() {
        return None;
    }
    let context = Span::current().context();
    let span = context.span().span_context().clone();
    span.is_valid()
        .then(|| format!("00-{}-{}-{:02x}", span.trace_id(), span.span_id(), span.trace_flags().to_u8()))
}

/// `00-<32 hex>-<16 hex>-<2 hex>`, as the W3C Trace Context recommendation has it.
fn parse(text: &str) -> Option<SpanContext> {
    let mut parts = text.split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let context = SpanContext::new(
        TraceId::from_hex(trace).ok()?,
        SpanId::from_hex(span).ok()?,
        TraceFlags::new(u8::from_str_radix(flags, 16).ok()?),
        true,
        TraceState::NONE,
    );
    (version == "00" && parts.next().is_none() && context.is_valid()).then_some(context)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_context_reads_and_what_is_none_does_not() {
        let read = parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01").unwrap();
        assert_eq!(read.trace_id().to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert!(read.is_remote() && read.is_sampled());
        for wrong in ["", "00", "00-0-0-0", "00-00000000000000000000000000000000-b7ad6b7169203331-01", "가"]
        {
            assert!(parse(wrong).is_none(), "{wrong}");
        }
    }
}
