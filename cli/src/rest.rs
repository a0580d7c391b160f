//! A running platform, called by REST: what a tool says when a call fails is what happened, and what to do next.

use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use reqwest::{Method, RequestBuilder, Response, StatusCode, header::RETRY_AFTER};
use serde_json::Value;

use crate::token::TokenFile;

/// The longest that one call may take.
const CALL_MAX: Duration = Duration::from_secs(30);
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// The longest pause that an answer may ask for.
const RETRY_AFTER_S_MAX: u64 = 60;

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "The platform that is called")]
pub(crate) struct RestSettings {
    /// The platform, or the front door before it
    #[arg(long, env = "TWELVE_URL", value_name = "URL", default_value = "http://127.0.0.1:8080",
          value_parser = service::settings::http_url)]
    url: String,
    #[command(flatten)]
    token: TokenFile,
}

/// A caller of the platform.
#[derive(Clone)]
pub(crate) struct Rest {
    http: reqwest::Client,
    url: String,
    token: Option<String>,
}

/// An answer, read to its end.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Value,
    /// Seconds after which the call may be made again, where the answer says so.
    pub(crate) retry_after_s: Option<u64>,
}

impl RestSettings {
    pub(crate) fn open(&self) -> anyhow::Result<Rest> {
        let token = self.token.read()?;
        let http = reqwest::Client::builder().connect_timeout(CONNECT_MAX).build()?;
        Ok(Rest { http, url: self.url.trim_end_matches('/').to_owned(), token })
    }
}

impl Rest {
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.url));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// Sends a request, and waits for the head of its answer.
    pub(crate) async fn send(&self, request: RequestBuilder) -> anyhow::Result<Response> {
        request.send().await.with_context(|| {
            format!("no platform answers at {}; start one: twelve up, or name it: --url URL", self.url)
        })
    }

    /// Calls, and reads the answer, whatever it is.
    pub(crate) async fn call(&self, request: RequestBuilder) -> anyhow::Result<Answer> {
        Answer::read(self.send(request.timeout(CALL_MAX)).await?).await
    }

    /// Calls; an error if the answer is none of success. `what` says what was asked for: "order X is not shown".
    pub(crate) async fn get(&self, path: &str, what: &str) -> anyhow::Result<Value> {
        let answer = self.call(self.request(Method::GET, path)).await?;
        anyhow::ensure!(answer.status.is_success(), "{what}: {}", answer.explain());
        Ok(answer.body)
    }
}

impl Answer {
    pub(crate) async fn read(response: Response) -> anyhow::Result<Self> {
        let status = response.status();
        let after = response.headers().get(RETRY_AFTER).and_then(|after| after.to_str().ok()?.parse().ok());
        let bytes = response.bytes().await.context("the answer broke off")?;
        let body = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()));
        let retry_after_s = after.map(|after: u64| after.min(RETRY_AFTER_S_MAX));
        Ok(Self { status, body, retry_after_s })
    }

    /// Whether there is too much to do, or something is away for a moment; what was asked for may be done all the same.
    pub(crate) fn is_passing(&self) -> bool {
        matches!(self.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE)
    }

    pub(crate) fn text(&self, name: &str) -> anyhow::Result<&str> {
        self.body[name].as_str().with_context(|| format!("the answer has no {name}: {}", self.body))
    }

    /// What a refusal says, with each faulty field, and what to do next.
    pub(crate) fn explain(&self) -> String {
        let Some(detail) = self.body["detail"].as_str() else {
            return format!(
                "HTTP {}: this is not a platform of Twelve, or its front door; see --url",
                self.status
            );
        };
        let code = self.body["code"].as_str().unwrap_or_default();
        let faults = self.body["errors"].as_array().into_iter().flatten().map(|fault| {
            let part = |name: &str| plain(fault[name].as_str().unwrap_or_default());
            format!("\n  {} {}", part("pointer"), part("detail"))
        });
        let advice = match self.status {
            StatusCode::UNAUTHORIZED => {
                "; name a token: --token-file FILE (twelve token --id ID --role customer > FILE)".to_owned()
            }
            StatusCode::FORBIDDEN => "; take a token with another role: --token-file FILE".to_owned(),
            StatusCode::NOT_FOUND if code == "order_not_found" => "; see twelve orders list".to_owned(),
            _ if self.is_passing() => {
                // Whether something was done all the same, the detail says.
                format!("; try again in {} s", self.retry_after_s.unwrap_or(1))
            }
            _ => String::new(),
        };
        format!("{} ({code}){advice}{}", plain(detail), faults.collect::<String>())
    }
}

/// A text of others without characters that would act on the terminal.
pub(crate) fn plain(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() || is_direction(c) { char::REPLACEMENT_CHARACTER } else { c })
        .collect()
}

/// Characters that turn the direction of what follows them.
const fn is_direction(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
