//! `/docs`: the contract as a reference that calls can be made from. Swagger UI, as its makers built it, from here: the
//! page asks no other host.

use std::io::Read;

use axum::{
    Router,
    http::{HeaderMap, HeaderValue, header},
    response::{Html, IntoResponse, Response},
    routing::get,
};
use flate2::read::GzDecoder;

/// The page runs what comes from here and calls nobody else. The reference sets styles of elements as it goes.
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

/// A file that lies compressed in the program, and goes out so to whoever reads that.
fn packed(kind: &'static str, bytes: &'static [u8]) -> axum::routing::MethodRouter {
    get(async move |headers: HeaderMap| send(kind, bytes, &headers))
}

fn send(kind: &'static str, bytes: &'static [u8], headers: &HeaderMap) -> Response {
    let accepted =
        headers.get_all(header::ACCEPT_ENCODING).into_iter().filter_map(|value| value.to_str().ok());
    let mut codings = accepted.flat_map(|value| value.split(','));
    let reads_gzip = codings.any(|coding| coding.trim() == "gzip");
    let mut response = if reads_gzip {
        ([(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"))], bytes).into_response()
    } else {
        let mut plain = Vec::new();
        match GzDecoder::new(bytes).read_to_end(&mut plain) {
            Ok(_) => plain.into_response(),
            Err(error) => {
                tracing::error!(%error, "cannot unpack a file of the reference");
                return crate::Problem::new(crate::Code::Internal, "a fault of ours; it was logged")
                    .into_response();
            }
        }
    };
    let told =
        [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, KEPT_S), (header::VARY, "accept-encoding")];
    for (name, value) in told {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
