//! A payment provider behind HTTP. The protocol is small and on one page: `docs/payment-provider.md`.

use std::time::Duration;

use domain::{Currency, Money, payment::Charge};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::json;
use tracing::Instrument;

use super::ProviderDown;

/// The largest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

#[derive(Clone, Debug)]
pub struct HttpProvider {
    client: reqwest::Client,
    url: String,
    secret: Option<String>,
}

/// What the provider answers about a key.
#[derive(Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
enum Entry {
    Approved { reference: String },
    Declined { reason: String },
    Closed,
}

#[derive(Deserialize)]
struct Closed {
    /// Minor units given back.
    returned: i64,
}

impl From<Entry> for Charge {
    fn from(entry: Entry) -> Self {
        match entry {
            Entry::Approved { reference } => Self::Approved { reference },
            Entry::Declined { reason } => Self::Declined { reason },
            Entry::Closed => Self::Declined { reason: "the attempt to pay was closed".into() },
        }
    }
}

impl HttpProvider {
    /// A provider at `url`; each call takes at most `limit`.
    pub fn new(url: &str, secret: Option<String>, limit: Duration) -> anyhow::Result<Self> {
        let client = reqwest::Client::builder()
            .timeout(limit)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("twelve/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Self { client, url: url.trim_end_matches('/').to_owned(), secret })
    }

    /// `POST /charges`, under the key.
    pub async fn charge(
        &self,
        key: &str,
        amount: Money,
        method: &str,
        token: &str,
    ) -> Result<Charge, ProviderDown> {
        let body =
            json!({ "amount": amount.amount, "currency": amount.currency, "method": method, "token": token });
        let request = self.request(Method::POST, "/charges").header("Idempotency-Key", key).json(&body);
        let answer = send(request).await?;
        match answer.status() {
            StatusCode::OK | StatusCode::CREATED | StatusCode::PAYMENT_REQUIRED | StatusCode::CONFLICT => {
                Ok(read::<Entry>(answer).await?.into())
            }
            status => Err(unusable(status)),
        }
    }

    /// `GET /charges/{key}`.
    pub async fn look_up(&self, key: &str) -> Result<Option<Charge>, ProviderDown> {
        let answer = send(self.request(Method::GET, &format!("/charges/{key}"))).await?;
        match answer.status() {
            StatusCode::OK => Ok(Some(read::<Entry>(answer).await?.into())),
            StatusCode::NOT_FOUND => Ok(None),
            status => Err(unusable(status)),
        }
    }

    /// `POST /charges/{key}/close`.
    pub async fn close(&self, key: &str, currency: Currency) -> Result<Money, ProviderDown> {
        let answer = send(self.request(Method::POST, &format!("/charges/{key}/close"))).await?;
        match answer.status() {
            StatusCode::OK => Ok(Money { amount: read::<Closed>(answer).await?.returned, currency }),
            status => Err(unusable(status)),
        }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.url));
        match &self.secret {
            Some(secret) => request.bearer_auth(secret),
            None => request,
        }
    }
}

async fn send(request: RequestBuilder) -> Result<Response, ProviderDown> {
    // The URL is left out: it may hold a name that is nobody's business.
    let span = nats::trace::span(None, || tracing::info_span!("payment provider", otel.kind = "client"));
    let sending = async {
        match nats::trace::current() {
            Some(here) => request.header("traceparent", here),
            None => request,
        }
        .send()
        .await
    };
    sending.instrument(span).await.map_err(|error| ProviderDown(nats::causes(&error.without_url())))
}

async fn read<T: DeserializeOwned>(mut answer: Response) -> Result<T, ProviderDown> {
    let mut body = Vec::new();
    while let Some(chunk) =
        answer.chunk().await.map_err(|error| ProviderDown(nats::causes(&error.without_url())))?
    {
        if body.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err(ProviderDown(format!("its answer has more than {ANSWER_BYTES_MAX} bytes")));
        }
        body.extend_from_slice(&chunk);
    }
    serde_json::from_slice(&body).map_err(|error| ProviderDown(format!("its answer does not read: {error}")))
}

fn unusable(status: StatusCode) -> ProviderDown {
    ProviderDown(format!("it answered {status}"))
}
