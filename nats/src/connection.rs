//! A connection that names itself, notices a dead peer, and tells when it is back.

use std::{future::Future, path::PathBuf, sync::Arc, time::Duration};

use async_nats::{Client, ConnectOptions, Event, jetstream};
use nkeys::KeyPair;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use crate::{accounts, here::Here};

/// How long one question to the server may take, publish acknowledgements included.
pub const SERVER_TIMEOUT: Duration = Duration::from_secs(3);
/// How long the first connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long an answer is waited for once the connection that it was asked on is gone, and there is another.
const ANSWER_AFTER_ALL: Duration = Duration::from_millis(100);
/// How long a connection may take to send what is buffered before it is closed.
const CLOSE_MAX: Duration = Duration::from_secs(2);
/// A server that hangs is left after three of these.
const PING_INTERVAL: Duration = Duration::from_secs(2);
/// The longest pause between two tries to connect again: so soon after a server is back, it is used.
const RECONNECT_PAUSE_MAX: Duration = Duration::from_millis(250);
/// The oldest server whose durable writes are fast and whose batches are sound.
pub const SERVER_VERSION_MIN: (u64, u64) = (2, 15);

/// Why there is no connection to work with.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("no nats-server answers at {url}")]
    Unreachable { url: String, source: async_nats::ConnectError },
    #[error("the key in {path} cannot be used: {why}")]
    Key { path: PathBuf, why: String },
    #[error(
        "the nats-server at {url} is version {found}; Twelve needs 2.15 or newer, because older ones lose speed or data on durable writes"
    )]
    TooOld { url: String, found: String },
}

/// How a process proves to the nats-server who it is, and knows the server.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct Identity {
    /// The file with this process's own key (the seed of a NATS key), as `twelve nats-accounts` makes them
    #[arg(long, env = "TWELVE_NATS_NKEY", value_name = "FILE")]
    pub nats_nkey: Option<PathBuf>,
    /// The file with the certificates (PEM) of whoever vouches for the nats-server; with it, only TLS is spoken
    #[arg(long, env = "TWELVE_NATS_CA", value_name = "FILE")]
    pub nats_ca: Option<PathBuf>,
}

impl Identity {
    fn apply(&self, mut options: ConnectOptions) -> Result<ConnectOptions, ConnectError> {
        if let Some(path) = &self.nats_nkey {
            let unusable = |why: String| ConnectError::Key { path: path.clone(), why };
            let seed = std::fs::read_to_string(path).map_err(|error| unusable(error.to_string()))?;
            let pair = KeyPair::from_seed(seed.trim()).map_err(|error| unusable(error.to_string()))?;
            options =
                options.nkey(seed.trim().to_owned()).custom_inbox_prefix(accounts::inbox(&pair.public_key()));
        }
        if let Some(path) = &self.nats_ca {
            options = options.add_root_certificates(path.clone()).require_tls(true);
        }
        Ok(options)
    }
}

/// A connected client; clones share everything.
#[derive(Clone)]
pub struct Connection {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) client: Client,
    pub(crate) jetstream: jetstream::Context,
    /// Counts how often the connection was made; a follower starts anew when it changes.
    pub(crate) connects: watch::Receiver<u64>,
    _keep: Arc<watch::Sender<u64>>,
    /// What is asked and answered by this connection alone.
    pub(crate) here: Here,
    url: String,
    identity: Identity,
}

impl Connection {
    /// Connects as `name`, proving nothing, and refuses a server older than [`SERVER_VERSION_MIN`].
    pub async fn open(url: &str, name: &str) -> Result<Self, ConnectError> {
        Self::open_as(url, name, &Identity::default()).await
    }

    /// Connects as `name` and refuses a server older than [`SERVER_VERSION_MIN`].
    pub async fn open_as(url: &str, name: &str, identity: &Identity) -> Result<Self, ConnectError> {
        let (sender, connects) = watch::channel(0_u64);
        let sender = Arc::new(sender);
        let counter = Arc::clone(&sender);
        let options = ConnectOptions::new()
            .name(name)
            .connection_timeout(CONNECT_TIMEOUT)
            .request_timeout(Some(SERVER_TIMEOUT))
            .ping_interval(PING_INTERVAL)
            .reconnect_delay_callback(reconnect_pause)
            .event_callback(move |event| {
                note(&event, &counter);
                std::future::ready(())
            });
        let servers: Vec<&str> = url.split(',').map(str::trim).collect();
        let connecting = identity.apply(options)?.connect(servers).await;
        let client =
            connecting.map_err(|source| ConnectError::Unreachable { url: without_secrets(url), source })?;
        let found = client.server_info().version.clone();
        if version(&found).is_none_or(|version| version < SERVER_VERSION_MIN) {
            return Err(ConnectError::TooOld { url: without_secrets(url), found });
        }
        let jetstream = jetstream::context::ContextBuilder::new()
            .timeout(SERVER_TIMEOUT)
            .ack_timeout(SERVER_TIMEOUT)
            .build(client.clone());
        // What is told of a first connection comes later than the connection.
        drop(timeout(CONNECT_TIMEOUT, connects.clone().wait_for(|count| *count > 0)).await);
        let shared = Shared {
            client,
            jetstream,
            connects,
            _keep: sender,
            here: Here::default(),
            url: url.to_owned(),
            identity: identity.clone(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Another connection to the same server, for work that is to have its own.
    pub async fn another(&self, name: &str) -> Result<Self, ConnectError> {
        Self::open_as(&self.shared.url, name, &self.shared.identity).await
    }

    /// Whether the server is reachable at this moment.
    pub fn is_connected(&self) -> bool {
        self.shared.client.connection_state() == async_nats::connection::State::Connected
    }

    /// What the server answers; nothing, if the connection was made anew meanwhile: then hardly ever an answer comes,
    /// and whoever waited until they lose patience would keep others waiting, with a server there to ask.
    pub(crate) async fn answered<T>(&self, answer: impl Future<Output = T>) -> Option<T> {
        let mut connects = self.shared.connects.clone();
        connects.mark_unchanged();
        let too_late = async {
            // The counter lives as long as this.
            drop(connects.changed().await);
            sleep(ANSWER_AFTER_ALL).await;
        };
        tokio::select! {
            biased;
            answer = answer => Some(answer),
            () = too_late => None,
        }
    }

    /// Sends what is buffered and closes; whoever waits for an answer should have it by now.
    pub async fn close(&self) {
        // While the server is away, what is to be sent waits for it.
        match timeout(CLOSE_MAX, self.shared.client.drain()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "the connection was closed already"),
            Err(_) => tracing::warn!("the connection is not closed after {CLOSE_MAX:?}: nats-server is away"),
        }
    }
}

/// The servers' addresses, to be printed: without users, passwords and tokens.
pub fn without_secrets(urls: &str) -> String {
    let plain = |url: &str| {
        let (scheme, rest) = url.split_once("://").map_or(("", url), |(scheme, rest)| (scheme, rest));
        let scheme = if scheme.is_empty() { String::new() } else { format!("{scheme}://") };
        rest.rsplit_once('@').map_or_else(|| url.to_owned(), |(_, host)| format!("{scheme}***@{host}"))
    };
    urls.split(',').map(plain).collect::<Vec<_>>().join(",")
}

fn note(event: &Event, connects: &watch::Sender<u64>) {
    match event {
        Event::Connected => {
            connects.send_modify(|count| *count += 1);
            tracing::debug!("connected to nats-server");
        }
        Event::Disconnected => tracing::warn!("lost the connection to nats-server; reconnecting"),
        Event::LameDuckMode
        | Event::Draining
        | Event::Closed
        | Event::SlowConsumer(_)
        | Event::ServerError(_)
        | Event::ClientError(_) => tracing::debug!(%event, "connection event"),
    }
}

/// The pause before the try of this number (1: the first): none, then twice as long each time.
fn reconnect_pause(number: usize) -> Duration {
    let doublings = u32::try_from(number.saturating_sub(1)).unwrap_or(u32::MAX);
    let pause = if doublings == 0 { 0 } else { 2_u64.saturating_pow(doublings) };
    Duration::from_millis(pause).min(RECONNECT_PAUSE_MAX)
}

/// Major and minor of a version such as `2.15.1` or `v2.15.1-RC.1`.
pub(crate) fn version(text: &str) -> Option<(u64, u64)> {
    let mut parts = text.trim().trim_start_matches('v').split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_is_away_is_tried_at_once_then_after_pauses_that_grow_up_to_a_quarter_of_a_second() {
        let pauses = [0, 1, 2, 3, 8, 9, 1_000_000].map(|number| reconnect_pause(number).as_millis());
        assert_eq!(pauses, [0, 0, 2, 4, 128, 250, 250]);
    }

    #[test]
    fn an_address_is_printed_without_its_password() {
        let urls = "nats://user:p@ss@one:4222,tls://token@two:4222,three:4222,nats://four";
        let plain = "nats://***@one:4222,tls://***@two:4222,three:4222,nats://four";
        assert_eq!(without_secrets(urls), plain);
    }

    #[test]
    fn servers_are_told_apart_by_major_and_minor() {
        assert_eq!(version("2.15.1"), Some((2, 15)));
        assert_eq!(version("v2.9.10"), Some((2, 9)));
        assert!(version("2.9.10") < Some(SERVER_VERSION_MIN));
        assert!(version("3.0.0-dev") > Some(SERVER_VERSION_MIN));
        assert_eq!(version("banana"), None);
    }
}
