//! Who calls: tokens of an issuer (JWT, RFC 7519), checked against its keys (JWKS, RFC 7517).

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderMap, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use clap::Args;
use domain::{
    Timestamp,
    access::{Contact, Person, Role},
    text::{TextFault, check_id, check_phone, check_text},
};
use jsonwebtoken::{Algorithm, Validation, decode, decode_header, errors::ErrorKind};
use serde::Deserialize;
use serde_json::Value;
use tower_http::csrf::{CsrfLayer, ProtectionError};

use crate::{
    cors, fields,
    hosts::Hosts,
    keys::{self, Keys, unauthenticated},
    problem::{Code, Problem},
    request::Caller,
};

/// How callers may sign: nothing that a public key could be mistaken for a secret in.
const ALGORITHMS: [Algorithm; 2] = [Algorithm::RS256, Algorithm::EdDSA];
/// Seconds by which clocks may differ.
const LEEWAY_S: u64 = 5;

/// Who may call.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Who may call")]
pub struct GuardSettings {
    /// The key set (JWKS) of those who issue callers' tokens: an URL or a file. Without it anybody may do anything,
    /// which is only allowed where nobody else can call: on a loopback address
    #[arg(long, env = "TWELVE_AUTH_JWKS", value_name = "URL|FILE", value_parser = keys::place)]
    pub auth_jwks: Option<String>,
    /// Who must have issued a token (`iss`); without it, anybody whose key is in the set
    #[arg(long, env = "TWELVE_AUTH_ISSUER", value_name = "ISSUER")]
    pub auth_issuer: Option<String>,
    /// For whom a token must be issued (`aud`)
    #[arg(long, env = "TWELVE_AUTH_AUDIENCE", value_name = "AUDIENCE", default_value = "twelve")]
    pub auth_audience: String,
    /// Web sites, other than the one that a page itself came from, whose pages may call (CORS)
    #[arg(long, env = "TWELVE_TRUSTED_ORIGINS", value_name = "ORIGIN,…", value_delimiter = ',')]
    pub trusted_origins: Vec<String>,
    /// Names, other than those of this machine, that are answered to while callers are not asked who they are
    #[arg(long, env = "TWELVE_HOST_NAMES", value_name = "NAME,…", value_delimiter = ',')]
    pub host_names: Vec<String>,
    /// Let anybody who reaches this process do anything, on any address
    #[arg(long, env = "TWELVE_UNPROTECTED")]
    pub unprotected: bool,
}

/// What a token says of its bearer.
#[derive(Deserialize)]
struct Claims {
    sub: String,
    /// Seconds since 1970, whole or not.
    exp: f64,
    /// Roles that we do not know are nobody's here.
    #[serde(default)]
    roles: Vec<String>,
    #[serde(default)]
    stores: Vec<String>,
    /// As `OpenID` Connect Core 1.0 §5.1 has them; some issuers write truth as a text.
    #[serde(default)]
    email: Option<String>,
    #[serde(default)]
    email_verified: Value,
    #[serde(default)]
    phone_number: Option<String>,
    #[serde(default)]
    phone_number_verified: Value,
}

/// Checks callers' tokens.
#[derive(Clone)]
pub struct Guard {
    shared: Arc<Shared>,
}

struct Shared {
    issuer: Option<String>,
    audience: String,
    keys: Arc<Keys>,
}

impl GuardSettings {
    /// The names that a listener answers to whose callers are asked for tokens, if any are.
    pub fn hosts(&self) -> Hosts {
        if self.auth_jwks.is_some() { Hosts::Any } else { self.hosts_without_tokens() }
    }

    /// The names that a listener answers to which asks for no tokens.
    pub fn hosts_without_tokens(&self) -> Hosts {
        Hosts::Local(self.host_names.clone())
    }

    /// The guard of a process that listens at `listen`; `None` where anybody may do anything.
    pub fn guard(&self, listen: SocketAddr) -> anyhow::Result<Option<Guard>> {
        let Some(jwks) = &self.auth_jwks else {
            anyhow::ensure!(
                self.unprotected || listen.ip().is_loopback(),
                "{listen} can be reached by others, and nothing says who may call: give --auth-jwks URL|FILE, or --unprotected if something else protects it"
            );
            tracing::warn!(
                "NOT PROTECTED: whoever reaches {listen} may do and see everything; --auth-jwks protects it"
            );
            return Ok(None);
        };
        let (issuer, audience) = (self.auth_issuer.clone(), self.auth_audience.clone());
        let keys = Arc::new(Keys::new(jwks).with_context(|| format!("--auth-jwks {jwks} cannot be used"))?);
        keys.look_ahead();
        let shared = Shared { issuer, audience, keys };
        Ok(Some(Guard { shared: Arc::new(shared) }))
    }
}

/// Lets only callers through to these routes who prove who they are; all, where there is no guard. Commands from the
/// pages of web sites that are not trusted are refused: a browser says where a page came from.
pub fn guarded(router: Router, settings: &GuardSettings, guard: Option<Guard>) -> anyhow::Result<Router> {
    let router = match guard {
        Some(guard) => router.layer(middleware::from_fn_with_state(guard, check)),
        None => router,
    };
    let router = same_site(router, &settings.trusted_origins)?;
    cors::with_cors(router, &settings.trusted_origins)
}

/// Refuses commands from the pages of web sites that are not trusted: a browser says where a page came from.
pub fn same_site(router: Router, trusted_origins: &[String]) -> anyhow::Result<Router> {
    let mut layer = CsrfLayer::new();
    for origin in trusted_origins {
        layer = layer.add_trusted_origin(origin).with_context(|| format!("--trusted-origins {origin}"))?;
    }
    let layer = layer.with_rejection_response(|_: ProtectionError| {
        let detail = "the page of another web site may not do this; --trusted-origins names those that may";
        Problem::new(Code::CrossSite, detail).into_response()
    });
    Ok(router.layer(layer))
}

async fn check(State(guard): State<Guard>, mut request: Request, next: Next) -> Response {
    match guard.person(request.headers()).await {
        Ok((person, expires_at)) => {
            metrics::counter!("twelve_auth_total", "outcome" => "known").increment(1);
            if let Some(caller) = request.extensions_mut().get_mut::<Caller>() {
                caller.person = Some(Arc::new(person));
                caller.token_expires_at = expires_at;
                return next.run(request).await;
            }
            // Unreachable while every router is layered; refusing is the safe way to be wrong.
            Problem::forbidden().into_response()
        }
        Err(problem) => {
            metrics::counter!("twelve_auth_total", "outcome" => problem.code()).increment(1);
            problem.into_response()
        }
    }
}

impl Guard {
    /// Who calls, and when their token expires.
    async fn person(&self, headers: &HeaderMap) -> Result<(Person, Option<Timestamp>), Problem> {
        let bearer = fields::single(headers, &header::AUTHORIZATION)?;
        let token = bearer
            .and_then(|value| value.split_once(' '))
            .and_then(|(scheme, token)| scheme.eq_ignore_ascii_case("bearer").then_some(token.trim()));
        let Some(token) = token else {
            let detail = "this call needs a token: Authorization: Bearer <token>";
            return Err(Problem::new(Code::Unauthenticated, detail).with_header("www-authenticate", "Bearer"));
        };
        let head = decode_header(token).map_err(|_| unauthenticated("the token does not read"))?;
        if !ALGORITHMS.contains(&head.alg) {
            return Err(unauthenticated("the token is not signed with RS256 or EdDSA"));
        }
        // What we must understand and do not (RFC 7515 §4.1.11): there is no extension that we do.
        if head.crit.is_some() || head.extras.inner().contains_key("crit") {
            return Err(unauthenticated("the token asks for an extension (crit) that is not known here"));
        }
        let key = self.shared.keys.key(head.kid.as_deref()).await?;
        let mut validation = Validation::new(head.alg);
        validation.leeway = LEEWAY_S;
        validation.validate_nbf = true;
        validation.set_audience(&[&self.shared.audience]);
        validation.set_required_spec_claims(&["exp", "sub", "aud"]);
        if let Some(issuer) = &self.shared.issuer {
            validation.set_issuer(&[issuer]);
            validation.required_spec_claims.insert("iss".into());
        }
        let claims = decode::<Claims>(token, &key, &validation).map_err(|error| why(error.kind()))?.claims;
        let expires_at = Duration::try_from_secs_f64(claims.exp).ok();
        let expires_at = expires_at.and_then(|after| Timestamp::UNIX_EPOCH.checked_add(after).ok());
        Ok((person(claims)?, expires_at))
    }
}

/// Why a token is refused; of what is not the bearer's to mend, only that.
fn why(error: &ErrorKind) -> Problem {
    let told = [
        (ErrorKind::ExpiredSignature, "the token has expired"),
        (ErrorKind::ImmatureSignature, "the token does not hold yet"),
        (ErrorKind::InvalidAudience, "the token is for somebody else"),
        (ErrorKind::InvalidIssuer, "the token is from an issuer that we do not know"),
    ];
    if let ErrorKind::MissingRequiredClaim(claim) = error {
        return unauthenticated(&format!("the token lacks the claim {claim}"));
    }
    let told = told.iter().find(|(kind, _)| kind == error);
    unauthenticated(told.map_or("the token is not valid", |(_, detail)| detail))
}

fn person(claims: Claims) -> Result<Person, Problem> {
    if let Err(fault) = check_id(&claims.sub) {
        return Err(unauthenticated(&format!("the token's sub is no id: it {fault}")));
    }
    let roles = claims.roles.into_iter().filter_map(|role| serde_json::from_value::<Role>(role.into()).ok());
    let verified = |given: Option<String>, is_verified: &Value, check: fn(&str) -> Result<(), TextFault>| {
        let is_verified = *is_verified == Value::Bool(true) || is_verified == "true";
        given.filter(|given| is_verified && check(given).is_ok())
    };
    let contact = Contact {
        email: verified(claims.email, &claims.email_verified, check_text),
        phone: verified(claims.phone_number, &claims.phone_number_verified, check_phone),
    };
    let stores = claims.stores.into_iter().collect();
    Ok(Person { id: claims.sub, roles: roles.collect(), stores, contact })
}
