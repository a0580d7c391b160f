//! Keeps a local nats-server running: it is started again when it ended, by whatever process, and when it takes nothing
//! any more although its disk has room.
//!
//! nats-server 2.15.1 stores no further message in a stream that it could not write once (a full disk), until it is
//! started again; it tells so only to who asks for its health.

use std::{io::Write as _, path::Path, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

use super::{LocalServer, RESTART_PAUSE, SOON, SOON_MAX, ServerError, log_of, said_name, server_name};

/// How often a server is asked for its health, and one that we did not start whether it is there.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// So many times in a row without an answer, and a server that we did not start is looked for.
const UNANSWERED_MAX: u32 = 3;
/// How long the process that started it may take to start it again.
const OWNER_MAX: Duration = Duration::from_secs(3);
/// How long its answer about its health may take.
const HEALTH_MAX: Duration = Duration::from_secs(2);
/// What its disk has to take before it is started again.
const ROOM_BYTES: usize = 4 * 1024 * 1024;

impl LocalServer {
    /// Starts it again at its address whenever it ended, or stores nothing although there is room; ends only if that
    /// cannot be done.
    pub async fn keep(&mut self) -> ServerError {
        let mut soon = 0;
        loop {
            let began = Instant::now();
            let ended = tokio::select! {
                ended = ended(self.child.as_mut(), (self.pid, &self.url), &self.directory) => ended,
                why = stuck(self.monitor.as_deref(), &self.directory) => {
                    if let Err(error) = self.quit().await {
                        return error;
                    }
                    why
                }
            };
            let log = log_of(&self.directory);
            soon = if began.elapsed() < SOON { soon + 1 } else { 0 };
            if soon >= SOON_MAX {
                return ServerError::KeepsEnding { log };
            }
            if self.child.is_none() && self.adopt_again().await {
                continue;
            }
            tracing::error!(why = ended, log = %log.display(), "nats-server is started again");
            sleep(RESTART_PAUSE * u32::saturating_sub(soon, 1)).await;
            if let Err(error) = self.restart().await {
                return error;
            }
        }
    }

    /// Whether another process started it again, which we then use.
    async fn adopt_again(&mut self) -> bool {
        let until = Instant::now() + OWNER_MAX;
        while Instant::now() < until {
            if let Some(found) = Self::adopt(&self.binary, &self.directory).await
                && found.url == self.url
            {
                *self = found;
                return true;
            }
            sleep(LOOK_EVERY / 10).await;
        }
        false
    }
}

/// Waits until a server ended; says how.
async fn ended(
    child: Option<&mut tokio::process::Child>,
    (pid, url): (u32, &str),
    directory: &Path,
) -> String {
    if let Some(child) = child {
        return child.wait().await.map_or_else(|error| error.to_string(), |status| status.to_string());
    }
    let (began, mut unanswered) = (began(pid), 0);
    while unanswered < UNANSWERED_MAX || runs(pid, began) {
        sleep(LOOK_EVERY).await;
        let name = said_name(url).await;
        unanswered = if name == Some(server_name(directory)) { 0 } else { unanswered + 1 };
    }
    format!("process {pid}, which another process started, is gone")
}

/// Whether the process is there that began then: its number may be another's by now.
fn runs(number: u32, since: Option<u64>) -> bool {
    let pid = i32::try_from(number).ok().and_then(rustix::process::Pid::from_raw);
    pid.is_some_and(|pid| rustix::process::test_kill_process(pid).is_ok()) && began(number) == since
}

/// When a process began, in ticks since this machine was started; `None` if there is none, or the system does not tell.
fn began(pid: u32) -> Option<u64> {
    /// The field's place behind the program's name, which stands in parentheses (proc(5), `starttime`).
    const PLACE: usize = 19;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(PLACE)?.parse().ok()
}

/// Waits until a server says that it could not write, and its disk has room by now; says what it says.
async fn stuck(monitor: Option<&str>, directory: &Path) -> String {
    loop {
        sleep(LOOK_EVERY).await;
        let Some(said) = health(monitor).await else { continue };
        if said.contains("write error") {
            let at = directory.join("room");
            if tokio::task::spawn_blocking(move || has_room(&at)).await.unwrap_or(false) {
                return said;
            }
        }
    }
}

/// What the server says of its health, if it is not well.
async fn health(monitor: Option<&str>) -> Option<String> {
    let address = monitor?.strip_prefix("http://")?;
    let ask = async {
        let mut stream = TcpStream::connect(address).await.ok()?;
        stream.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        (!answer.starts_with("HTTP/1.0 200")).then(|| answer.rsplit("\r\n").next().map(ToOwned::to_owned))?
    };
    timeout(HEALTH_MAX, ask).await.ok()?
}

/// Whether a file of [`ROOM_BYTES`] can be written there; it is removed again.
fn has_room(at: &Path) -> bool {
    let written = std::fs::File::create(at)
        .and_then(|mut file| file.write_all(&vec![0; ROOM_BYTES]).and_then(|()| file.sync_all()));
    drop(std::fs::remove_file(at));
    written.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn a_process_that_has_the_number_of_an_earlier_one_is_not_taken_for_it() {
        let pid = std::process::id();
        let began = began(pid).expect("the system tells");
        assert!(runs(pid, Some(began)));
        assert!(!runs(pid, Some(began - 1)), "the earlier one is gone");
    }
}
