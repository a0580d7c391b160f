//! `/docs`: the contract as a reference that calls can be made from. Swagger UI, as its makers built it, from here: the
//! page asks no other host.

use std::{
    io::Read,
    sync::{Arc, OnceLock},
};

use axum::{
    Router,
    body::Bytes,
    http::{HeaderMap, HeaderValue, header},
    response::{Html, IntoResponse},
    routing::get,
};
use flate2::read::GzDecoder;

use crate::fields;

/// The page runs scripts of this service and calls no other. The reference sets styles of elements as it goes.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const SCRIPT: &[u8] = include_bytes!("../../reference/swagger-ui-bundle.js.gz");
const STYLE: &[u8] = include_bytes!("../../reference/swagger-ui.css.gz");
const LICENSES: &str = include_str!("../../reference/LICENSES.txt");
/// How long browsers may keep a file of the reference, in seconds.
const KEPT_S: &str = "public, max-age=3600";

const PAGE: &str = "<!doctype html>
<html lang=\"en\">
<head>
<meta charset=\"utf-8\">
<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">
<title>Twelve: the calls</title>
<link rel=\"icon\" href=\"data:,\">
<link rel=\"stylesheet\" href=\"/docs/swagger-ui.css\">
</head>
<body>
<div id=\"reference\"></div>
<noscript>The same as data: <a href=\"/openapi.json\">/openapi.json</a></noscript>
<footer><a href=\"/openapi.json\">openapi.json</a> · <a href=\"/asyncapi.json\">asyncapi.json</a> ·
<a href=\"/problems\">problems</a> · <a href=\"/docs/licenses.txt\">licenses</a></footer>
<script src=\"/docs/swagger-ui.js\"></script>
<script src=\"/docs/start.js\"></script>
</body>
</html>
";

const START: &str = "SwaggerUIBundle({
  url: '/openapi.json',
  dom_id: '#reference',
  presets: [SwaggerUIBundle.presets.apis],
  layout: 'BaseLayout',
  deepLinking: true,
  displayOperationId: true,
  docExpansion: 'list',
  defaultModelsExpandDepth: 0,
  validatorUrl: null,
});
";

/// The page and what belongs to it.
pub(super) fn router() -> Router {
    let text =
        |kind: &'static str, text: &'static str| get(async move || ([(header::CONTENT_TYPE, kind)], text));
    Router::new()
        .route("/docs", get(async || ([(header::CONTENT_SECURITY_POLICY, POLICY)], Html(PAGE))))
        .route("/docs/start.js", text("text/javascript; charset=utf-8", START))
        .route("/docs/licenses.txt", text("text/plain; charset=utf-8", LICENSES))
        .route("/docs/swagger-ui.js", packed("text/javascript; charset=utf-8", SCRIPT))
        .route("/docs/swagger-ui.css", packed("text/css; charset=utf-8", STYLE))
}

/// A file that lies compressed in the program, and is sent so to clients that accept it. For others it is unpacked
/// once.
fn packed(kind: &'static str, bytes: &'static [u8]) -> axum::routing::MethodRouter {
    let plain: Arc<OnceLock<Bytes>> = Arc::default();
    get(async move |headers: HeaderMap| {
        let mut response = if reads_gzip(&headers) {
            ([(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"))], bytes).into_response()
        } else {
            plain.get_or_init(|| unpacked(bytes)).clone().into_response()
        };
        let told = [
            (header::CONTENT_TYPE, kind),
            (header::CACHE_CONTROL, KEPT_S),
            (header::VARY, "accept-encoding"),
        ];
        for (name, value) in told {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response
    })
}

/// Whether `Accept-Encoding` takes gzip, by its name or as any other coding (RFC 9110 §12.5.3).
fn reads_gzip(headers: &HeaderMap) -> bool {
    let accepted = fields::list(headers, &header::ACCEPT_ENCODING).unwrap_or_default();
    let quality = |coding| fields::quality(&accepted, coding);
    quality("gzip").or_else(|| quality("x-gzip")).or_else(|| quality("*")).is_some_and(|quality| quality > 0)
}

fn unpacked(bytes: &[u8]) -> Bytes {
    let mut plain = Vec::new();
    if let Err(error) = GzDecoder::new(bytes).read_to_end(&mut plain) {
        // It is a part of the program, and a test unpacks it.
        tracing::error!(%error, "cannot unpack a file of the reference");
    }
    plain.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_goes_to_those_who_accept_it_and_to_no_other() {
        let reads = |lines: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(header::ACCEPT_ENCODING, HeaderValue::from_static(line));
            }
            reads_gzip(&headers)
        };
        for lines in [&["gzip"][..], &["br, GZIP;q=0.5"], &["br", "gzip"], &["*"], &["x-gzip"]] {
            assert!(reads(lines), "{lines:?}");
        }
        for lines in [&[][..], &["gzip;q=0"], &["gzip; q=0.000, *"], &["*;q=0"], &["br"], &["notgzip"], &[""]]
        {
            assert!(!reads(lines), "{lines:?}");
        }
    }

    #[test]
    fn what_lies_compressed_in_the_program_unpacks() {
        assert!(unpacked(SCRIPT).len() > SCRIPT.len() && unpacked(STYLE).len() > STYLE.len());
    }
}
