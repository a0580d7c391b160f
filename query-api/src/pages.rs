//! Pages of lists are built off the threads that serve calls, some at a time: what they hold while they are built has
//! a bound, and no call waits behind a large one on its thread.

use std::{ops::Deref, time::Duration};

use projector::{List, Page, SCAN_PLACES_MAX};
use service::{Code, Problem};
use tokio::{
    runtime::{Handle, RuntimeFlavor},
    sync::{Semaphore, SemaphorePermit},
    time::timeout,
};

use crate::{App, read::store_failed};

/// Pages that are built at a time, on all routes of the process.
const BUILT_AT_ONCE_MAX: usize = 16;
/// How long a page may wait to be built.
const WAIT_MAX: Duration = Duration::from_secs(5);
const RETRY_AFTER_S: u64 = 1;

static BUILT_AT_ONCE: Semaphore = Semaphore::const_new(BUILT_AT_ONCE_MAX);

/// A page that is being made into an answer.
pub(crate) struct Listed<L: List> {
    page: Page<L>,
    _built: SemaphorePermit<'static>,
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
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
        wanted: impl Fn(&L::Row) -> bool + Send,
    ) -> Result<Listed<L>, Problem> {
        self.list_within(prefix, after, (limit, SCAN_PLACES_MAX), wanted).await
    }

    /// As [`Self::list`], and looks at so many rows at most.
    pub(crate) async fn list_within<L: List>(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        bounds: (usize, usize),
        wanted: impl Fn(&L::Row) -> bool + Send,
    ) -> Result<Listed<L>, Problem> {
        let Ok(Ok(built)) = timeout(WAIT_MAX, BUILT_AT_ONCE.acquire()).await else {
            metrics::counter!("twelve_refused_total", "why" => "pages").increment(1);
            let detail = "too many pages are being built; try again";
            return Err(Problem::unavailable(Code::Overloaded, detail, RETRY_AFTER_S));
        };
        let page = off_threads(|| self.views.list_within::<L>(prefix, after, bounds, wanted));
        Ok(Listed { page: page.map_err(|error| store_failed(&error))?, _built: built })
    }
}

/// Works without keeping other calls from this thread, where there are others.
pub(crate) fn off_threads<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}
