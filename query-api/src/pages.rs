//! Pages of lists are built off the threads that serve calls, as many at a time as there are processors, and callers
//! take turns: what pages hold while they are built has a bound, and one caller's pages delay another's by one.

use std::{
    ops::Deref,
    sync::{Arc, LazyLock},
    thread::available_parallelism,
    time::Duration,
};

use projector::{List, Page, SCAN_PLACES_MAX};
use service::{Caller, Code, Kind, Problem, Share};
use tokio::{
    runtime::{Handle, RuntimeFlavor},
    time::timeout,
};

use crate::{
    App,
    read::store_failed,
    turns::{Turn, Turns},
};

/// How long a page may wait to be built.
const WAIT_MAX: Duration = Duration::from_secs(15);
const RETRY_AFTER_S: u64 = 1;

/// On all routes of the process.
static TURNS: LazyLock<Arc<Turns>> =
    LazyLock::new(|| Turns::new(available_parallelism().map_or(1, Into::into)));

/// A page's turn to be built, and its caller's share of pages.
pub(crate) struct Building {
    _turn: Turn,
    _share: Share,
}

/// Waits for the caller's turn to have a page built. 429 `too_many_at_once` where the caller waits for as many as one
/// may, 503 `overloaded` where there are too many in all, or this one's turn does not come in time.
pub(crate) async fn turn(caller: &Caller) -> Result<Building, Problem> {
    let share = caller.share(Kind::Pages)?;
    let Ok(turn) = timeout(WAIT_MAX, TURNS.take(&caller.counted_as())).await else {
        metrics::counter!("twelve_refused_total", "why" => "pages").increment(1);
        let detail = "too many pages are being built; try again";
        return Err(Problem::unavailable(Code::Overloaded, detail, RETRY_AFTER_S));
    };
    Ok(Building { _turn: turn, _share: share })
}

/// A page that is being made into an answer.
pub(crate) struct Listed<L: List> {
    page: Page<L>,
    _building: Building,
}

impl<L: List> Deref for Listed<L> {
    type Target = Page<L>;

    fn deref(&self) -> &Page<L> {
        &self.page
    }
}

impl<L: List> Listed<L> {
    /// The rows as readers see them.
    pub(crate) fn shown(&self) -> Vec<L::Shown> {
        off_threads(|| self.page.shown())
    }

    /// The page alone, where more is to be waited for.
    pub(crate) fn released(self) -> Page<L> {
        self.page
    }
}

impl App {
    /// The rows whose places begin with `prefix`, after the place `after`, that `wanted` holds for: at most `limit`,
    /// and at most [`PAGE_BYTES_MAX`](projector::PAGE_BYTES_MAX).
    pub(crate) async fn list<L: List>(
        &self,
        caller: &Caller,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
        wanted: impl Fn(&L::Row) -> bool + Send,
    ) -> Result<Listed<L>, Problem> {
        self.list_within(caller, prefix, after, (limit, SCAN_PLACES_MAX), wanted).await
    }

    /// As [`Self::list`], and looks at so many rows at most.
    pub(crate) async fn list_within<L: List>(
        &self,
        caller: &Caller,
        prefix: &[u8],
        after: Option<&[u8]>,
        bounds: (usize, usize),
        wanted: impl Fn(&L::Row) -> bool + Send,
    ) -> Result<Listed<L>, Problem> {
        let building = turn(caller).await?;
        let page = off_threads(|| self.views.list_within::<L>(prefix, after, bounds, wanted));
        Ok(Listed { page: page.map_err(|error| store_failed(&error))?, _building: building })
    }
}

/// Works without keeping other calls from this thread, where there are others.
pub(crate) fn off_threads<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}
