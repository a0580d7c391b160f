//! What can be set.

use std::{str::FromStr, time::Duration};

use clap::{Args, ValueEnum};
use domain::Context;
use service::settings;

use crate::preset::BreakerSettings;

/// The longest rehearsed delay.
const ANSWER_DELAY_MS_MAX: u64 = 60_000;

/// A context whose commands this process decides, or the saga.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Role {
    Ordering,
    Payment,
    Store,
    Marketing,
    Delivery,
    Review,
    Notification,
    Saga,
}

impl Role {
    /// The context that the role decides for.
    pub const fn context(self) -> Context {
        match self {
            Self::Ordering => Context::Ordering,
            Self::Payment => Context::Payment,
            Self::Store => Context::Store,
            Self::Marketing => Context::Marketing,
            Self::Delivery => Context::Delivery,
            Self::Review => Context::Review,
            Self::Notification => Context::Notification,
            Self::Saga => Context::Saga,
        }
    }
}

/// How long a rehearsed answer is held back, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnswerDelay {
    least: u64,
    most: u64,
}

impl AnswerDelay {
    /// A delay of the range; `None` if there is none.
    pub fn draw(self) -> Option<Duration> {
        let (drawn, _) = uuid::Uuid::new_v4().as_u64_pair();
        let ms = self.least + drawn % (self.most - self.least + 1);
        (ms > 0).then(|| Duration::from_millis(ms))
    }
}

impl FromStr for AnswerDelay {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (least, most) = text.split_once('-').unwrap_or((text, text));
        let number = |text: &str| text.parse::<u64>().ok().filter(|ms| *ms <= ANSWER_DELAY_MS_MAX);
        match (number(least), number(most)) {
            (Some(least), Some(most)) if least <= most => Ok(Self { least, most }),
            _ => Err(format!("give milliseconds up to {ANSWER_DELAY_MS_MAX}, or a range like 500-720")),
        }
    }
}

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Commands and payment")]
pub struct CommandSettings {
    /// The contexts that this process serves
    #[arg(
        long,
        env = "TWELVE_ROLES",
        value_enum,
        value_delimiter = ',',
        value_name = "ROLE,…",
        default_value = "ordering,payment,store,marketing,delivery,review,notification,saga"
    )]
    pub roles: Vec<Role>,
    /// Milliseconds within which commands are to be decided and stored; where they are not, fewer are admitted at a
    /// time, and more are refused with 503
    #[arg(long, env = "TWELVE_STORE_GOAL_MS", value_name = "MS", default_value_t = 25,
          value_parser = clap::value_parser!(u64).range(1..=60_000))]
    pub store_goal_ms: u64,
    /// Milliseconds that the payment provider may take
    #[arg(long, env = "TWELVE_PROVIDER_TIMEOUT_MS", value_name = "MS", default_value_t = 3_000,
          value_parser = clap::value_parser!(u64).range(10..=20_000))]
    pub provider_timeout_ms: u64,
    /// Longest pause, in milliseconds, before the saga tries a step again
    #[arg(long, env = "TWELVE_RETRY_PAUSE_MAX_MS", value_name = "MS", default_value_t = 5_000,
          value_parser = clap::value_parser!(u64).range(100..=600_000))]
    pub retry_pause_max_ms: u64,
    /// The payment provider's URL, see docs/payment-provider.md; without one, the built-in sandbox answers by token
    #[arg(long, env = "TWELVE_PAYMENT_URL", value_name = "URL", value_parser = settings::http_url)]
    pub payment_url: Option<String>,
    /// What the payment provider knows us by, sent as a bearer token
    #[arg(long, env = "TWELVE_PAYMENT_SECRET", value_name = "SECRET", hide_env_values = true)]
    pub payment_secret: Option<String>,
    /// Milliseconds, or a range of them (500-720), that this process's contexts wait before each answer: a rehearsal of
    /// slowness
    #[arg(long, env = "TWELVE_ANSWER_DELAY_MS", value_name = "MS", default_value = "0")]
    pub answer_delay_ms: AnswerDelay,
    #[command(flatten)]
    pub breaker: BreakerSettings,
    #[command(flatten)]
    pub notify: NotifySettings,
}

/// How customers are told.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Messages to customers")]
pub struct NotifySettings {
    /// The mail server: smtp://HOST:PORT, or smtps://USER:PASSWORD@HOST:PORT; without one, mails are recorded, not sent
    #[arg(long, env = "TWELVE_MAIL_SERVER", value_name = "URL", hide_env_values = true)]
    pub mail_server: Option<String>,
    /// Whom mails come from
    #[arg(
        long,
        env = "TWELVE_MAIL_FROM",
        value_name = "ADDRESS",
        default_value = "Twelve <no-reply@localhost>"
    )]
    pub mail_from: String,
    /// Where to post KakaoTalk messages; without one, they are recorded, not sent
    #[arg(long, env = "TWELVE_KAKAO_URL", value_name = "URL", value_parser = settings::http_url)]
    pub kakao_url: Option<String>,
    /// Where to post text messages (SMS); without one, they are recorded, not sent
    #[arg(long, env = "TWELVE_SMS_URL", value_name = "URL", value_parser = settings::http_url)]
    pub sms_url: Option<String>,
    /// What posts are signed with, as the receiver gave it: whsec_ and base64 (Standard Webhooks)
    #[arg(long, env = "TWELVE_WEBHOOK_SECRET", value_name = "SECRET", hide_env_values = true)]
    pub webhook_secret: Option<String>,
    /// Milliseconds that the sending of one message may take
    #[arg(long, env = "TWELVE_NOTIFY_TIMEOUT_MS", value_name = "MS", default_value_t = 5_000,
          value_parser = clap::value_parser!(u64).range(10..=60_000))]
    pub notify_timeout_ms: u64,
    /// Seconds after a change in which its message is tried again and again; then it is given up, visibly
    #[arg(long, env = "TWELVE_NOTIFY_WITHIN_S", value_name = "S", default_value_t = 14_400,
          value_parser = clap::value_parser!(u64).range(1..=604_800))]
    pub notify_within_s: u64,
    /// Longest pause, in milliseconds, before a message is tried again
    #[arg(long, env = "TWELVE_NOTIFY_PAUSE_MAX_MS", value_name = "MS", default_value_t = 60_000,
          value_parser = clap::value_parser!(u64).range(100..=3_600_000))]
    pub notify_pause_max_ms: u64,
    /// Messages that one recipient may get within an hour from each process; more wait, and are given up when they
    /// have waited too long
    #[arg(long, env = "TWELVE_NOTIFY_RECIPIENT_HOUR_MAX", value_name = "N", default_value_t = 60,
          value_parser = clap::value_parser!(u32).range(1..))]
    pub notify_recipient_hour_max: u32,
}

impl NotifySettings {
    pub const fn timeout(&self) -> Duration {
        Duration::from_millis(self.notify_timeout_ms)
    }

    pub const fn within(&self) -> Duration {
        Duration::from_secs(self.notify_within_s)
    }

    pub const fn pause_max(&self) -> Duration {
        Duration::from_millis(self.notify_pause_max_ms)
    }
}

impl CommandSettings {
    pub const fn store_goal(&self) -> Duration {
        Duration::from_millis(self.store_goal_ms)
    }

    pub const fn provider_timeout(&self) -> Duration {
        Duration::from_millis(self.provider_timeout_ms)
    }

    pub const fn retry_pause_max(&self) -> Duration {
        Duration::from_millis(self.retry_pause_max_ms)
    }
}
