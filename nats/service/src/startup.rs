//! How a service starts while what it needs is not there yet.

use std::time::Duration;

use clap::Args;
use nats::{ConnectError, topology::TopologyError};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// From one try to the next.
const PAUSE: Duration = Duration::from_millis(500);

/// How patient a service is when it starts.
#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "The nats-server")]
pub struct StartupSettings {
    /// Seconds for which a service that starts waits for what is missing: nats-server, its own key, the log's streams,
    /// its work queues. Then it ends with an error
    #[arg(long, env = "TWELVE_STARTUP_WAIT_S", value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(..=86_400))]
    pub startup_wait_s: u64,
}

impl StartupSettings {
    /// Tries until it works, until time is up, or until `stop`; answers with the last error then. What no patience
    /// helps against is an error at once.
    pub async fn patiently<T>(
        self,
        stop: &CancellationToken,
        mut attempt: impl AsyncFnMut() -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let until = Instant::now() + Duration::from_secs(self.startup_wait_s);
        let mut told = None;
        loop {
            let error = tokio::select! {
                biased;
                () = stop.cancelled() => anyhow::bail!("stopped before it was up"),
                tried = attempt() => match tried {
                    Ok(value) => return Ok(value),
                    Err(error) => error,
                },
            };
            let now = Instant::now();
            if now >= until || is_for_good(&error) {
                return Err(error);
            }
            // Each reason once: it may be the same for half a minute.
            let why = format!("{error:#}");
            if told.as_ref() != Some(&why) {
                tracing::warn!(wait_s_max = (until - now).as_secs(), "cannot start yet: {why}");
                told = Some(why);
            }
            tokio::select! { biased; () = stop.cancelled() => {}, () = sleep(PAUSE.min(until - now)) => {} }
        }
    }
}

/// Whether it takes somebody to change something.
fn is_for_good(error: &anyhow::Error) -> bool {
    let of_log = match error.downcast_ref::<TopologyError>() {
        Some(TopologyError::Partitions { .. } | TopologyError::Keeps | TopologyError::Unsafe { .. }) => true,
        // The job that makes them may be under way.
        Some(
            TopologyError::Silent(_)
            | TopologyError::Missing(_)
            | TopologyError::NoQueues(_)
            | TopologyError::Server { .. },
        )
        | None => false,
    };
    let of_server = match error.downcast_ref::<ConnectError>() {
        Some(ConnectError::TooOld { .. }) => true,
        Some(ConnectError::Unreachable { .. } | ConnectError::Key { .. }) | None => false,
    };
    of_log || of_server
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn waited(settings: StartupSettings, error: fn() -> anyhow::Error, fails: u32) -> (u32, bool) {
        let mut tries = 0;
        let outcome = settings
            .patiently(&CancellationToken::new(), async || {
                tries += 1;
                if tries > fails { Ok(()) } else { Err(error()) }
            })
            .await;
        (tries, outcome.is_ok())
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_missing_is_waited_for_until_time_is_up_and_what_is_wrong_is_not() {
        let missing = || TopologyError::Missing("ORDERS-0".into()).into();
        let other = || TopologyError::Partitions { found: "2".into(), wanted: 4 }.into();
        let settings = StartupSettings { startup_wait_s: 5 };
        assert_eq!(waited(settings, missing, 3).await, (4, true));
        assert_eq!(waited(settings, missing, u32::MAX).await, (11, false));
        assert_eq!(waited(settings, other, 1).await, (1, false));
        assert_eq!(waited(StartupSettings { startup_wait_s: 0 }, missing, 1).await, (1, false));
    }

    #[tokio::test(start_paused = true)]
    async fn a_service_that_is_told_to_stop_waits_for_nothing() {
        let (settings, stop) = (StartupSettings { startup_wait_s: 3_600 }, CancellationToken::new());
        let began = Instant::now();
        let (stopped, canceled) = (settings.patiently::<()>(&stop, async || anyhow::bail!("away")), async {
            sleep(Duration::from_secs(2)).await;
            stop.cancel();
        });
        let (stopped, ()) = tokio::join!(stopped, canceled);
        assert!(stopped.is_err() && began.elapsed() == Duration::from_secs(2));
    }
}
