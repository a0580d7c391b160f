//! A worker on a list: its place among others, what it is handed, and its word about that.

use std::{
    future::pending,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures::future::BoxFuture;
use nats::{
    broker::{Failure, Handed, Receipt, Word},
    worklist::List,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};

use super::Net;

/// A worker that is gone keeps its place so long, unless another takes it over.
const PLACE_KEPT: Duration = Duration::from_secs(3);

/// A worker's place in a list's group, kept for a while after it is gone.
struct Place {
    net: Arc<Net>,
    list: List,
    partition: u16,
    member: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        let (net, list, partition, member) = (Arc::clone(&self.net), self.list, self.partition, self.member);
        self.net.goes_on(async move {
            sleep(PLACE_KEPT).await;
            net.server().leave(list, partition, member);
            net.wake(list, partition);
        });
    }
}

/// A worker that is handed messages.
pub(super) struct Worker {
    place: Place,
    news: watch::Receiver<()>,
    starts: watch::Receiver<u64>,
    /// The first to be dealt with comes last.
    handed: Vec<(String, u64, u32)>,
    is_over: bool,
}

impl Worker {
    pub(super) fn new(
        net: &Arc<Net>,
        (list, partition, member): (List, u16, u64),
        news: watch::Receiver<()>,
        starts: watch::Receiver<u64>,
    ) -> Self {
        let place = Place { net: Arc::clone(net), list, partition, member };
        Self { place, news, starts, handed: Vec::new(), is_over: false }
    }

    /// The next message, and the worker that waits for the one after.
    pub(super) async fn next(mut self) -> Option<(Result<Handed, Failure>, Self)> {
        let Place { list, partition, member, .. } = self.place;
        loop {
            if self.is_over {
                return None;
            }
            let started = *self.starts.borrow();
            if let Some((subject, sequence, deliveries)) = self.handed.pop() {
                let net = Arc::clone(&self.place.net);
                let receipt = Box::new(Slip { net, list, partition, sequence });
                let pending = self.handed.len() as u64;
                let due = self.place.net.server().due_in(list, partition, sequence);
                let handed = Handed { subject, sequence, deliveries, pending, due, receipt };
                return Some((Ok(handed), self));
            }
            self.news.mark_unchanged();
            let handing = self.place.net.server().hand_out(list, partition, member, Instant::now());
            let Some(handing) = handing else {
                self.is_over = true;
                return Some((Err("the server knows this worker no more".into()), self));
            };
            self.handed = handing.messages;
            self.handed.reverse();
            if self.handed.is_empty() {
                let next = handing.next;
                let again = async {
                    match next {
                        Some(next) => sleep_until(next).await,
                        None => pending().await,
                    }
                };
                let is_lost = tokio::select! {
                    biased;
                    _ = self.starts.wait_for(|starts| *starts != started) => true,
                    changed = self.news.changed() => changed.is_err(),
                    () = again => false,
                };
                if is_lost {
                    self.is_over = true;
                    return Some((Err("the connection was lost".into()), self));
                }
            } else {
                let travel = self.place.net.travel();
                if !travel.is_zero() {
                    sleep(travel).await;
                }
            }
        }
    }
}

/// The way back for a word about one message.
struct Slip {
    net: Arc<Net>,
    list: List,
    partition: u16,
    sequence: u64,
}

impl Receipt for Slip {
    /// Nobody learns whether it arrives.
    fn tell(&self, word: Word) -> BoxFuture<'_, Result<(), Failure>> {
        let (list, partition, sequence) = (self.list, self.partition, self.sequence);
        if self.net.loses(self.net.weather.lost_request) {
            return Box::pin(async { Ok(()) });
        }
        let arrive = move |net: &Net| {
            if net.is_up.load(Ordering::Relaxed) {
                net.server().tell(list, partition, sequence, word, Instant::now());
                if word != Word::Done {
                    net.wake(list, partition);
                }
            }
        };
        let travel = self.net.travel();
        if travel.is_zero() {
            arrive(&self.net);
        } else {
            let net = Arc::clone(&self.net);
            self.net.goes_on(async move {
                sleep(travel).await;
                arrive(&net);
            });
        }
        Box::pin(async { Ok(()) })
    }
}
