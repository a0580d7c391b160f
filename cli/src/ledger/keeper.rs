//! Keeps a ledger up with the log beside everything else, and says whether it can.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{Json, Router, extract::State, http::StatusCode, response::IntoResponse, routing::get};
use ledger::{Ledger, LedgerError, follow, shown};
use nats::EventLog;
use serde_json::json;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Before a database that is away is tried again; twice as long after each try, up to the longest.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(30);
/// Why it does not follow the log before it was seen to.
const STARTING: &str = "it has not been seen to follow the log yet";
/// How long its connections may take to close.
const CLOSE_MAX: Duration = Duration::from_secs(5);

/// Why the ledger does not follow the log; `None` while it does.
type Fault = Arc<Mutex<Option<String>>>;

/// A ledger that is kept up with a log.
pub(crate) struct Keeper {
    url: String,
    log: EventLog,
    fault: Fault,
}

impl Keeper {
    /// Tries the ledger once: what can never work is an error now; what may pass is tried again later.
    pub(crate) async fn open(url: String, log: EventLog) -> anyhow::Result<Self> {
        metrics::describe_gauge!(
            "twelve_ledger_up",
            "1 while the ledger follows the log, 0 while it does not"
        );
        // Until something was booked, or there turns out to be nothing to book.
        metrics::gauge!("twelve_ledger_up").set(0.0);
        let keeper = Self { url, log, fault: Arc::new(Mutex::new(Some(STARTING.to_owned()))) };
        match keeper.begin().await {
            Ok(ledger) => close(&ledger).await,
            Err(error) if error.is_passing() => keeper.note(&error),
            Err(error) => return Err(anyhow::Error::new(error).context(keeper.name())),
        }
        Ok(keeper)
    }

    fn name(&self) -> String {
        format!("the ledger at {} cannot be kept", shown(&self.url))
    }

    /// `/readyz/ledger`: 503 and the reason while the ledger does not follow the log. Orders go on without it, so
    /// `/readyz` does not ask for it.
    pub(crate) fn probe(&self) -> Router {
        Router::new().route("/readyz/ledger", get(ready)).with_state(self.fault.clone())
    }

    /// Follows the log until `stop`. What may pass is tried again and again; the rest ends it, visibly.
    pub(crate) async fn run(self, stop: CancellationToken) -> Result<(), LedgerError> {
        let (mut pause, follows) = (RETRY_PAUSE, AtomicBool::new(false));
        while !stop.is_cancelled() {
            let Some(begun) = stop.run_until_cancelled(self.begin()).await else { break };
            let error = match begun {
                Ok(ledger) => {
                    let is_up = || {
                        follows.store(true, Ordering::Release);
                        self.note_following();
                    };
                    let followed = follow::follow(&self.log, &ledger, &stop, &is_up).await;
                    close(&ledger).await;
                    let Err(error) = followed else { break };
                    if follows.swap(false, Ordering::AcqRel) {
                        pause = RETRY_PAUSE;
                    }
                    error
                }
                Err(error) => error,
            };
            self.note(&error);
            let is_over = matches!(
                error,
                LedgerError::Unreadable(_) | LedgerError::OtherLog { .. } | LedgerError::Shortened(_)
            );
            if is_over {
                return Err(error);
            }
            tokio::select! { () = stop.cancelled() => {}, () = sleep(pause) => {} }
            pause = (pause * 2).min(RETRY_PAUSE_MAX);
        }
        Ok(())
    }

    /// The ledger, and that it is this log's.
    async fn begin(&self) -> Result<Ledger, LedgerError> {
        let ledger = Ledger::open(&self.url).await?;
        let infos = follow::partitions(&self.log).await?;
        if let Err(error) = ledger.checkpoints(&infos).await {
            close(&ledger).await;
            return Err(error);
        }
        Ok(ledger)
    }

    /// Notes why it does not follow the log; logged when that is news.
    fn note(&self, error: &LedgerError) {
        metrics::gauge!("twelve_ledger_up").set(0.0);
        let why = nats::causes(error);
        let before = self.fault.lock().unwrap_or_else(PoisonError::into_inner).replace(why.clone());
        if before.as_ref() != Some(&why) {
            let place = shown(&self.url);
            tracing::warn!(
                error = why,
                place,
                "the ledger does not follow the log; orders go on, and it is tried again"
            );
        }
    }

    fn note_following(&self) {
        metrics::gauge!("twelve_ledger_up").set(1.0);
        if self.fault.lock().unwrap_or_else(PoisonError::into_inner).take().is_some() {
            tracing::info!(place = shown(&self.url), "the ledger follows the log");
        }
    }
}

async fn close(ledger: &Ledger) {
    if timeout(CLOSE_MAX, ledger.close()).await.is_err() {
        tracing::debug!("connections of the ledger did not close in {CLOSE_MAX:?}");
    }
}

async fn ready(State(fault): State<Fault>) -> impl IntoResponse {
    let fault = fault.lock().unwrap_or_else(PoisonError::into_inner).clone();
    match fault {
        None => (StatusCode::OK, Json(json!({ "status": "ready" }))),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "status": "not ready", "detail": why }))),
    }
}
