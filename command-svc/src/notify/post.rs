//! The ways out: mail by SMTP, KakaoTalk and SMS by a signed webhook, each behind a circuit breaker of its own.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::STANDARD};
use domain::notification::{Medium, RECORDED_ONLY};
use futures::future::BoxFuture;
use lettre::{
    AsyncSmtpTransport, AsyncTransport, Tokio1Executor,
    message::{
        Mailbox,
        header::{ContentType, MIME_VERSION_1_0},
    },
};
use reqwest::StatusCode;

use super::{
    message::Message,
    recipients::{Recipients, recipient},
};
use crate::{
    breaker::{Breaker, BreakerError, Breakers},
    retry_after::RetryAfter,
    settings::CommandSettings,
};

/// Why a message did not leave.
#[derive(Debug, thiserror::Error)]
pub enum PostError {
    /// A repeat may go better.
    #[error("{0}")]
    NotNow(String),
    /// A repeat may go better, and not before so long.
    #[error("{0}, and asks not to be called for {1:?}")]
    NotBefore(String, Duration),
    /// A repeat would go the same way.
    #[error("{0}")]
    Never(String),
    #[error("the last messages by {0} did not leave; it is left alone for a moment")]
    BreakerOpen(&'static str),
    #[error("the recipient got as many messages within the last hour as one may get")]
    TooMany,
}

/// Whoever brings messages to customers.
pub trait Carrier: Send + Sync {
    /// Sends a message; answers with the name under which it left.
    fn send(&self, message: Message) -> BoxFuture<'_, Result<String, PostError>>;
}

/// Where messages by one medium go.
#[derive(Clone)]
#[expect(clippy::large_enum_variant, reason = "there are three of them")]
enum Way {
    /// Nowhere: they are recorded only. For trying things out.
    Sandbox,
    Mail(Arc<Mail>),
    Webhook {
        client: reqwest::Client,
        url: String,
        key: Option<hmac::Key>,
        retry_after: RetryAfter,
    },
}

struct Mail {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
}

/// What the breaker counts as an answer: that a message left, or that this one never will.
type Answer = Result<String, PostError>;
type Sending = Breaker<Message, Answer, PostError>;

/// Sends messages by mail, SMS and KakaoTalk.
pub struct Post {
    ways: BTreeMap<Medium, Sending>,
    /// The media of which messages really leave.
    leaving: BTreeSet<Medium>,
    recipients: Recipients,
}

impl Post {
    /// Sets up the ways out, as set; a medium without one is a sandbox, which is said aloud.
    pub fn new(settings: &CommandSettings, breakers: &Breakers) -> anyhow::Result<Self> {
        let limit = settings.notify.timeout();
        let (mut ways, mut leaving) = (BTreeMap::new(), BTreeSet::new());
        for medium in [Medium::Mail, Medium::Sms, Medium::Kakao] {
            let way = Way::of(medium, settings, limit)?;
            if matches!(way, Way::Sandbox) {
                tracing::info!(
                    medium = medium.as_str(),
                    "messages are recorded and not sent: no way out is set"
                );
            } else {
                leaving.insert(medium);
            }
            let send = move |message| answered(way.clone(), message);
            ways.insert(medium, breakers.breaker(medium.as_str(), &settings.breaker, send));
        }
        let recipients = Recipients::new(settings.notify.notify_recipient_hour_max);
        Ok(Self { ways, leaving, recipients })
    }
}

impl Carrier for Post {
    fn send(&self, message: Message) -> BoxFuture<'_, Result<String, PostError>> {
        Box::pin(async move {
            let medium = message.medium;
            let way = self.ways.get(&medium).cloned().ok_or(PostError::BreakerOpen(medium.as_str()))?;
            let recipient = self.leaving.contains(&medium).then(|| recipient(medium, &message.to));
            if recipient.as_ref().is_some_and(|recipient| !self.recipients.take(recipient, Instant::now())) {
                return Err(PostError::TooMany);
            }
            let sent = way.call(message).await.map_err(|error| match error {
                BreakerError::Open => PostError::BreakerOpen(medium.as_str()),
                BreakerError::Failed(error) => error,
            });
            let sent = sent.and_then(|answer| answer);
            if let (Err(_), Some(recipient)) = (&sent, &recipient) {
                self.recipients.give_back(recipient);
            }
            sent
        })
    }
}

impl Way {
    fn of(medium: Medium, settings: &CommandSettings, limit: Duration) -> anyhow::Result<Self> {
        let notify = &settings.notify;
        let url = match medium {
            Medium::Mail => match &notify.mail_server {
                Some(server) => {
                    let builder = AsyncSmtpTransport::<Tokio1Executor>::from_url(server)?;
                    let transport = builder.timeout(Some(limit)).build();
                    let from = notify.mail_from.parse()?;
                    return Ok(Self::Mail(Arc::new(Mail { transport, from })));
                }
                None => return Ok(Self::Sandbox),
            },
            Medium::Sms => &notify.sms_url,
            Medium::Kakao => &notify.kakao_url,
        };
        let Some(url) = url.clone() else { return Ok(Self::Sandbox) };
        let key = notify.webhook_secret.as_deref().map(signing_key).transpose()?;
        // Only where it is needed: it wants the machine's certificates, and there may be none.
        let client = reqwest::Client::builder()
            .timeout(limit)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("twelve/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Self::Webhook { client, url, key, retry_after: RetryAfter::default() })
    }
}

fn signing_key(secret: &str) -> anyhow::Result<hmac::Key> {
    let encoded = secret.strip_prefix("whsec_").unwrap_or(secret);
    let bytes = STANDARD.decode(encoded).map_err(|_| {
        anyhow::anyhow!("the webhook secret reads whsec_ and then base64, as the receiver gave it")
    })?;
    Ok(hmac::Key::new(hmac::HMAC_SHA256, &bytes))
}

/// One customer's wrong address says nothing about the way out, and must not close it to all the others.
async fn answered(way: Way, message: Message) -> Result<Answer, PostError> {
    match send(way, message).await {
        Err(error @ PostError::Never(_)) => Ok(Err(error)),
        sent => sent.map(Ok),
    }
}

fn send(way: Way, message: Message) -> Pin<Box<dyn Future<Output = Result<String, PostError>> + Send>> {
    Box::pin(async move {
        match way {
            Way::Sandbox => Ok(format!("{RECORDED_ONLY}{}", message.about)),
            Way::Mail(mail) => mail.send(&message).await,
            Way::Webhook { client, url, key, retry_after } => {
                if let Some(left) = retry_after.time_left() {
                    return Err(PostError::NotBefore("the receiver is busy".into(), left));
                }
                webhook(&client, &url, (key.as_ref(), &retry_after), &message).await
            }
        }
    })
}

impl Mail {
    async fn send(&self, message: &Message) -> Result<String, PostError> {
        let never = |error: &dyn std::error::Error| PostError::Never(nats::causes(error));
        let to = message.to.parse().map_err(|error: lettre::address::AddressError| never(&error))?;
        let reference = format!("<{}@twelve>", message.about);
        let mail = lettre::Message::builder()
            .message_id(Some(reference.clone()))
            .from(self.from.clone())
            .to(Mailbox::new(None, to))
            .subject(&message.subject)
            // Its body is encoded, which a reader only knows by this (RFC 2045 §4).
            .header(MIME_VERSION_1_0)
            .header(ContentType::TEXT_PLAIN)
            .body(message.text.clone())
            .map_err(|error| never(&error))?;
        match self.transport.send(mail).await {
            Ok(_) => Ok(reference),
            Err(error) if error.is_permanent() => Err(never(&error)),
            Err(error) => Err(PostError::NotNow(nats::causes(&error))),
        }
    }
}

/// Posts a message, signed as Standard Webhooks have it (<https://www.standardwebhooks.com>, `v1`, HMAC-SHA256).
async fn webhook(
    client: &reqwest::Client,
    url: &str,
    (key, retry_after): (Option<&hmac::Key>, &RetryAfter),
    message: &Message,
) -> Result<String, PostError> {
    let (id, now) = (message.about.to_string(), nats::now());
    let body = serde_json::json!({
        "type": format!("order.{}", message.status.as_str()),
        "timestamp": now,
        "data": {
            "order_id": message.order_id,
            "status": message.status,
            "medium": message.medium,
            "to": message.to,
            "language": message.language,
            "text": message.text,
        },
    })
    .to_string();
    let timestamp = now.as_second().to_string();
    let mut request = client.post(url).header("content-type", "application/json");
    if let Some(here) = nats::trace::current() {
        request = request.header("traceparent", here);
    }
    if let Some(key) = key {
        let tag = hmac::sign(key, format!("{id}.{timestamp}.{body}").as_bytes());
        request = request.header("webhook-signature", format!("v1,{}", STANDARD.encode(tag.as_ref())));
    }
    let sent =
        request.header("webhook-id", &id).header("webhook-timestamp", timestamp).body(body).send().await;
    let answer = sent.map_err(|error| PostError::NotNow(nats::causes(&error.without_url())))?;
    let status = answer.status();
    if let Some(pause) = retry_after.record(status, answer.headers(), now) {
        return Err(PostError::NotBefore(format!("the receiver answered {status}"), pause));
    }
    match status {
        status if status.is_success() => Ok(id),
        StatusCode::BAD_REQUEST
        | StatusCode::GONE
        | StatusCode::PAYLOAD_TOO_LARGE
        | StatusCode::UNPROCESSABLE_ENTITY => {
            Err(PostError::Never(format!("the receiver answered {status}")))
        }
        status => Err(PostError::NotNow(format!("the receiver answered {status}"))),
    }
}
