//! A payment provider behind HTTP. The protocol is small and on one page: `docs/payment-provider.md`.

use std::time::Duration;

use domain::{Currency, Money, payment::Charge, text::TEXT_CHARS_MAX};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::json;
use tracing::Instrument;

use super::ProviderError;
use crate::retry_after::RetryAfter;

/// The largest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// A provider behind HTTP; clones share what it asked for.
#[derive(Clone, Debug)]
pub struct HttpProvider {
    client: reqwest::Client,
    url: String,
    secret: Option<String>,
    retry_after: RetryAfter,
}

/// What the provider answers about a key.
#[derive(Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
enum Entry {
    Approved {
        reference: String,
        /// Minor units taken, if the provider says so.
        #[serde(default)]
        amount: Option<i64>,
        /// Of which currency, if the provider says so.
        #[serde(default)]
        currency: Option<String>,
    },
    Declined {
        reason: String,
    },
    Closed,
}

#[derive(Deserialize)]
struct Closed {
    /// Minor units given back.
    returned: i64,
    /// Of which currency, if the provider says so.
    #[serde(default)]
    currency: Option<String>,
}

/// What a provider says of a key that was asked for again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holding {
    /// The money is with the provider; how much, in minor units, if it says so.
    Held(Option<i64>),
    /// It is not: declined, closed, or never charged.
    NotHeld,
}

impl From<Entry> for Charge {
    fn from(entry: Entry) -> Self {
        match entry {
            Entry::Approved { reference, .. } => Self::Approved { reference: clean(&reference) },
            Entry::Declined { reason } => Self::Declined { reason: clean(&reason) },
            Entry::Closed => Self::Declined { reason: "the attempt to pay was closed".into() },
        }
    }
}

impl Entry {
    /// What it says of an attempt to take `asked`.
    fn charge_of(self, asked: Money) -> Result<Charge, ProviderError> {
        if let Self::Approved { amount, currency, .. } = &self {
            of_currency(currency.as_deref(), asked.currency)?;
            if let Some(taken) = amount.filter(|taken| *taken != asked.amount) {
                let told = format!("it took {taken}, and was asked for {}", asked.amount);
                return Err(ProviderError::Mismatch(told));
            }
        }
        Ok(self.into())
    }
}

/// Of an answer to a charge whose body says otherwise than its status.
fn contradicts(status: StatusCode) -> ProviderError {
    ProviderError::Refused(format!("it answered {status}, and the body does not agree"))
}

/// Refuses a currency that the provider names and that was not asked for.
fn of_currency(told: Option<&str>, asked: Currency) -> Result<(), ProviderError> {
    match told {
        Some(told) if told != asked.to_string() => {
            Err(ProviderError::Mismatch(format!("it says {}, and was asked for {asked}", clean(told))))
        }
        Some(_) | None => Ok(()),
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
        let url = url.trim_end_matches('/').to_owned();
        Ok(Self { client, url, secret, retry_after: RetryAfter::default() })
    }

    /// `POST /charges`, under the key.
    pub async fn charge(
        &self,
        key: &str,
        amount: Money,
        method: &str,
        token: &str,
    ) -> Result<Charge, ProviderError> {
        let body =
            json!({ "amount": amount.amount, "currency": amount.currency, "method": method, "token": token });
        let request = self.request(Method::POST, "/charges").header("Idempotency-Key", key).json(&body);
        let answer = self.send(request).await?;
        match answer.status() {
            // Status and body must agree. Of any other answer it is not known whether money moved: the key is closed.
            status @ (StatusCode::OK | StatusCode::CREATED) => match read::<Entry>(answer).await? {
                entry @ Entry::Approved { .. } => entry.charge_of(amount),
                Entry::Declined { .. } | Entry::Closed => Err(contradicts(status)),
            },
            status @ StatusCode::CONFLICT => match read::<Entry>(answer).await? {
                entry @ (Entry::Declined { .. } | Entry::Closed) => Ok(entry.into()),
                Entry::Approved { .. } => Err(contradicts(status)),
            },
            status @ StatusCode::PAYMENT_REQUIRED => match read::<Entry>(answer).await {
                Ok(entry @ (Entry::Declined { .. } | Entry::Closed)) => Ok(entry.into()),
                Ok(Entry::Approved { .. }) | Err(_) => Err(contradicts(status)),
            },
            status => Err(unusable(status)),
        }
    }

    /// `GET /charges/{key}`; `asked` is what was to be taken under it.
    pub async fn look_up(&self, key: &str, asked: Money) -> Result<Option<Charge>, ProviderError> {
        self.entry(key).await?.map(|entry| entry.charge_of(asked)).transpose()
    }

    /// Whether the provider holds money under the key.
    pub async fn holding(&self, key: &str) -> Result<Holding, ProviderError> {
        Ok(match self.entry(key).await? {
            Some(Entry::Approved { amount, .. }) => Holding::Held(amount),
            Some(Entry::Declined { .. } | Entry::Closed) | None => Holding::NotHeld,
        })
    }

    async fn entry(&self, key: &str) -> Result<Option<Entry>, ProviderError> {
        let answer = self.send(self.request(Method::GET, &format!("/charges/{key}"))).await?;
        match answer.status() {
            StatusCode::OK => Ok(Some(read::<Entry>(answer).await?)),
            StatusCode::NOT_FOUND => Ok(None),
            status => Err(unusable_of_key(status)),
        }
    }

    /// `POST /charges/{key}/close`.
    pub async fn close(&self, key: &str, currency: Currency) -> Result<Money, ProviderError> {
        let answer = self.send(self.request(Method::POST, &format!("/charges/{key}/close"))).await?;
        match answer.status() {
            StatusCode::OK => {
                let closed = read::<Closed>(answer).await?;
                of_currency(closed.currency.as_deref(), currency)?;
                Ok(Money { amount: closed.returned, currency })
            }
            status => Err(unusable_of_key(status)),
        }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.url));
        match &self.secret {
            Some(secret) => request.bearer_auth(secret),
            None => request,
        }
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, ProviderError> {
        if let Some(left) = self.retry_after.time_left() {
            let told = format!("it asked not to be called for another {} s", left.as_secs_f64().ceil());
            return Err(ProviderError::Down(told));
        }
        // The URL is left out: it may hold credentials.
        let span = nats::trace::span(None, || tracing::info_span!("payment provider", otel.kind = "client"));
        let sending = async {
            match nats::trace::current() {
                Some(here) => request.header("traceparent", here),
                None => request,
            }
            .send()
            .await
        };
        let sent = sending.instrument(span).await;
        let answer = sent.map_err(|error| ProviderError::Down(nats::causes(&error.without_url())))?;
        if let Some(pause) = self.retry_after.record(answer.status(), answer.headers(), nats::now()) {
            tracing::warn!(status = %answer.status(), ?pause, "the payment provider asks not to be called for a while");
        }
        Ok(answer)
    }
}

async fn read<T: DeserializeOwned>(mut answer: Response) -> Result<T, ProviderError> {
    let mut body = Vec::new();
    while let Some(chunk) =
        answer.chunk().await.map_err(|error| ProviderError::Down(nats::causes(&error.without_url())))?
    {
        if body.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err(ProviderError::Down(format!("its answer has more than {ANSWER_BYTES_MAX} bytes")));
        }
        body.extend_from_slice(&chunk);
    }
    serde_json::from_slice(&body)
        .map_err(|error| ProviderError::Down(format!("its answer does not read: {error}")))
}

/// What a status says that the protocol does not know: 408, 425, 429 and 5xx something of the provider, all others of
/// 4xx something of this call only.
fn unusable(status: StatusCode) -> ProviderError {
    let is_of_the_call = status.is_client_error()
        && !matches!(
            status,
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS
        );
    let told = format!("it answered {status}");
    if is_of_the_call { ProviderError::Refused(told) } else { ProviderError::Down(told) }
}

/// The same of a call about a key that is known already: no card can be the reason why we are not let in.
fn unusable_of_key(status: StatusCode) -> ProviderError {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            ProviderError::Down(format!("it answered {status}: does it know our secret?"))
        }
        status => unusable(status),
    }
}

/// A provider's text as one of a caller's would be: no control characters, and no longer than others. The money has
/// moved whatever the text is, so it is mended and not refused.
fn clean(text: &str) -> String {
    let visible =
        |character: char| if character.is_control() { char::REPLACEMENT_CHARACTER } else { character };
    text.chars().take(TEXT_CHARS_MAX).map(visible).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_providers_text_has_no_control_characters_and_is_as_short_as_a_callers() {
        assert_eq!(clean("pay-1\0\u{1b}[31m"), "pay-1\u{fffd}\u{fffd}[31m");
        assert_eq!(clean(&"한".repeat(TEXT_CHARS_MAX + 1)).chars().count(), TEXT_CHARS_MAX);
    }
}
