//! The keys of those who issue tokens, as their key set (JWKS, RFC 7517) has them. They are asked for by one request at
//! a time, with no lock held, and what is known serves meanwhile.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use jsonwebtoken::{
    DecodingKey,
    jwk::{Jwk, JwkSet, KeyOperations, PublicKeyUse},
};
use tokio::{sync::watch, time::timeout};

use crate::{
    problem::{Code, Problem},
    settings,
};

/// How long the issuer may take to answer with its keys.
const KEYS_TIMEOUT: Duration = Duration::from_secs(3);
/// Bytes that a key set may have.
const KEYS_BYTES_MAX: usize = 256 * 1024;
/// The least time from one look at the issuer's keys to the next, however many unknown keys tokens name.
const KEYS_PAUSE: Duration = Duration::from_secs(2);
/// After this time the keys are looked at again, so that one that was withdrawn is not believed for ever.
const KEYS_AGE_MAX: Duration = Duration::from_mins(5);
const RETRY_AFTER_S: u64 = 2;

enum Source {
    Url(String, reqwest::Client),
    File(PathBuf),
}

/// The keys of an issuer.
pub(crate) struct Keys {
    source: Source,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    set: Option<Arc<JwkSet>>,
    looked_at: Option<Instant>,
    /// Whether the last look that ended had no answer: what is not known here may be known to the issuer.
    is_away: bool,
    /// The look that is under way; it ends when its sender is dropped.
    looking: Option<watch::Receiver<()>>,
}

impl Keys {
    /// The keys at an URL, whose host may be away; or in a file, which has to be there.
    pub(crate) fn new(place: &str) -> anyhow::Result<Self> {
        let source = if is_url(place) {
            let client = reqwest::Client::builder().timeout(KEYS_TIMEOUT).build()?;
            Source::Url(place.to_owned(), client)
        } else {
            let bytes = std::fs::read(place).with_context(|| format!("cannot read {place}"))?;
            read(&bytes)?;
            Source::File(place.into())
        };
        Ok(Self { source, state: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The key of this id, from the issuer if it is new. A key that is known is answered at once, however the issuer
    /// is; one that is not waits for one look at the issuer's, together with all others. 401 where the issuer does not
    /// know it either, 503 where that could not be asked: a token under a new key may be good.
    pub(crate) async fn key(self: &Arc<Self>, kid: Option<&str>) -> Result<DecodingKey, Problem> {
        let (known, is_old) = {
            let state = self.state();
            (state.set.clone(), state.looked_at.is_none_or(|at| at.elapsed() >= KEYS_AGE_MAX))
        };
        if let Some(jwk) = known.as_ref().and_then(|set| find(set, kid)) {
            if is_old {
                self.look();
            }
            return decoding_key(jwk);
        }
        if let Some(mut looking) = self.look() {
            // It is an error that the look has ended, which is what is waited for.
            drop(looking.changed().await);
        }
        let (set, is_away) = {
            let state = self.state();
            (state.set.clone(), state.is_away)
        };
        match set.as_ref().and_then(|set| find(set, kid)) {
            Some(jwk) => decoding_key(jwk),
            None if is_away || set.is_none() => {
                let detail = "the keys that tokens are checked with cannot be had now; try again";
                Err(Problem::unavailable(Code::KeysUnavailable, detail, RETRY_AFTER_S))
            }
            None => Err(unknown()),
        }
    }

    /// Looks at the issuer's keys without anybody waiting: so that it is known, and logged, at the start already where
    /// they cannot be had. Outside of a runtime it does nothing.
    pub(crate) fn look_ahead(self: &Arc<Self>) {
        if tokio::runtime::Handle::try_current().is_ok() {
            self.look();
        }
    }

    /// The look at the issuer's keys that is under way, or one that begins now; `None` so soon after the last.
    fn look(self: &Arc<Self>) -> Option<watch::Receiver<()>> {
        let mut state = self.state();
        if let Some(looking) = state.looking.as_ref().filter(|looking| looking.has_changed().is_ok()) {
            return Some(looking.clone());
        }
        if state.looked_at.is_some_and(|at| at.elapsed() < KEYS_PAUSE) {
            return None;
        }
        state.looked_at = Some(Instant::now());
        let (under_way, looking) = watch::channel(());
        state.looking = Some(looking.clone());
        drop(state);
        let keys = Arc::clone(self);
        // It ends within its time limit, whatever the issuer does.
        tokio::spawn(async move {
            let loaded = timeout(KEYS_TIMEOUT, keys.source.load()).await;
            let loaded = loaded.unwrap_or_else(|_| Err(anyhow::anyhow!("there was no answer in time")));
            keys.state().is_away = loaded.is_err();
            let outcome = match loaded {
                Ok(set) => {
                    keys.state().set = Some(Arc::new(set));
                    "had"
                }
                // Known keys stay in use: while the issuer is away, tokens that they signed are good.
                Err(error) => {
                    let error = format!("{error:#}");
                    tracing::warn!(error, from = %keys.source, "the key set (--auth-jwks) cannot be had");
                    "failed"
                }
            };
            metrics::counter!("twelve_auth_keys_total", "outcome" => outcome).increment(1);
            drop(under_way);
        });
        Some(looking)
    }
}

fn is_url(place: &str) -> bool {
    place.contains("://")
}

/// Reads where keys are: an URL that can be asked by HTTP, or a file.
pub(crate) fn place(text: &str) -> Result<String, String> {
    if is_url(text) { settings::http_url(text) } else { Ok(text.to_owned()) }
}

fn read(bytes: &[u8]) -> anyhow::Result<JwkSet> {
    serde_json::from_slice(bytes).context("it is no key set (JWKS)")
}

/// A key that tokens are signed with: one for encryption is none (RFC 7517 §4.2, §4.3).
fn is_for_signatures(jwk: &Jwk) -> bool {
    let is_meant = match &jwk.common.public_key_use {
        Some(PublicKeyUse::Signature) | None => true,
        Some(PublicKeyUse::Encryption | PublicKeyUse::Other(_)) => false,
    };
    let operations = jwk.common.key_operations.as_ref();
    is_meant && operations.is_none_or(|operations| operations.contains(&KeyOperations::Verify))
}

fn find<'a>(set: &'a JwkSet, kid: Option<&str>) -> Option<&'a Jwk> {
    let mut usable = set.keys.iter().filter(|jwk| is_for_signatures(jwk));
    match kid {
        Some(kid) => usable.find(|jwk| jwk.common.key_id.as_deref() == Some(kid)),
        // One key needs no name.
        None => usable.next().filter(|_| usable.next().is_none()),
    }
}

fn unknown() -> Problem {
    unauthenticated("the token is signed with an unknown key")
}

fn decoding_key(jwk: &Jwk) -> Result<DecodingKey, Problem> {
    DecodingKey::from_jwk(jwk).map_err(|error| {
        tracing::warn!(%error, kid = jwk.common.key_id, "a key of the issuer does not read");
        unknown()
    })
}

/// 401: the token does not tell who calls.
pub(crate) fn unauthenticated(detail: &str) -> Problem {
    Problem::new(Code::Unauthenticated, detail)
        .with_header("www-authenticate", "Bearer error=\"invalid_token\"")
}

impl std::fmt::Display for Source {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Url(url, _) => formatter.write_str(&nats::connection::without_secrets(url)),
            Self::File(path) => write!(formatter, "{}", path.display()),
        }
    }
}

impl Source {
    async fn load(&self) -> anyhow::Result<JwkSet> {
        let bytes = match self {
            Self::Url(url, client) => {
                let mut response = client.get(url).send().await?.error_for_status()?;
                let mut bytes = Vec::new();
                while let Some(chunk) = response.chunk().await? {
                    anyhow::ensure!(bytes.len() + chunk.len() <= KEYS_BYTES_MAX, "{url} is too long");
                    bytes.extend_from_slice(&chunk);
                }
                bytes
            }
            Self::File(path) => {
                tokio::fs::read(path).await.with_context(|| format!("cannot read {}", path.display()))?
            }
        };
        read(&bytes)
    }
}
