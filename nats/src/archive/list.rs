//! What objects the archive has, as a process knows it: looked at again when it is wanted and old, once for all who
//! want it then.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use async_nats::jetstream::context::GetStreamErrorKind;
use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use tokio::time::timeout;

use super::{ABOUT, About, ArchiveError, BUCKET, bucket, failed, torn};
use crate::{connection::Connection, objects};

/// How old the list of the archived may be that a process goes by.
pub(super) const FRESH_FOR: Duration = Duration::from_secs(5);
/// How long the list of all objects may take.
const LIST_MAX: Duration = Duration::from_secs(30);

/// Every object, with its name.
pub(super) type Objects = Vec<(String, About)>;

/// What a process knows of the archive.
#[derive(Clone, Default)]
struct Known {
    looked_at: Option<Instant>,
    /// The last sequence of the object store's stream by then.
    sequence: u64,
    objects: Arc<Objects>,
}

/// A look at the archive that is under way; all who need it wait for the same one.
type Look = Shared<BoxFuture<'static, Result<Known, Arc<ArchiveError>>>>;

/// What is known, and the look that is under way.
#[derive(Default)]
struct Looking {
    known: Known,
    look: Option<Look>,
}

/// The list of the archive's objects.
pub(super) struct ObjectList {
    connection: Connection,
    /// Held for a moment, never while the server is asked.
    looking: Arc<Mutex<Looking>>,
}

impl ObjectList {
    pub(super) fn new(connection: Connection) -> Self {
        Self { connection, looking: Arc::default() }
    }

    /// Every object there is, with its name, as of at most [`FRESH_FOR`] before this is asked.
    pub(super) async fn objects(&self) -> Result<Arc<Objects>, ArchiveError> {
        let asked = Instant::now();
        let is_fresh = |known: &Known| known.looked_at.is_some_and(|at| at + FRESH_FOR >= asked);
        loop {
            let look = {
                let mut looking = self.looking();
                if is_fresh(&looking.known) {
                    return Ok(Arc::clone(&looking.known.objects));
                }
                let known = looking.known.clone();
                looking.look.get_or_insert_with(|| self.look(known)).clone()
            };
            let known = look.await.map_err(ArchiveError::Look)?;
            // One that was under way for long says too little; the next one begins now.
            if is_fresh(&known) {
                return Ok(known.objects);
            }
        }
    }

    fn looking(&self) -> MutexGuard<'_, Looking> {
        self.looking.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A look, which goes on although whoever began it does not wait any more.
    fn look(&self, known: Known) -> Look {
        let (connection, noted) = (self.connection.clone(), Arc::clone(&self.looking));
        let looked = tokio::spawn(async move {
            let looked = looked(&connection, known).await.map_err(Arc::new);
            let mut looking = noted.lock().unwrap_or_else(PoisonError::into_inner);
            looking.look = None;
            if let Ok(known) = &looked {
                looking.known = known.clone();
            }
            looked
        });
        let noted = Arc::clone(&self.looking);
        let looked = async move {
            match looked.await {
                Ok(looked) => looked,
                // What it ran on has ended.
                Err(ended) => {
                    noted.lock().unwrap_or_else(PoisonError::into_inner).look = None;
                    Err(Arc::new(failed(ended)))
                }
            }
        };
        looked.boxed().shared()
    }
}

/// What is known after a look at the archive, of which this was known before.
async fn looked(connection: &Connection, known: Known) -> Result<Known, ArchiveError> {
    let looked_at = Some(Instant::now());
    // Asked first: what is listed then has everything up to there.
    let sequence = sequence(connection).await?;
    let objects = if sequence == known.sequence {
        known.objects
    } else {
        Arc::new(timeout(LIST_MAX, list(connection)).await.map_err(failed)??)
    };
    Ok(Known { looked_at, sequence, objects })
}

/// How far the object store's stream goes; 0 if there is none.
async fn sequence(connection: &Connection) -> Result<u64, ArchiveError> {
    match connection.shared.jetstream.get_stream(objects::stream(BUCKET)).await {
        Ok(stream) => Ok(stream.cached_info().state.last_sequence),
        Err(error) => match error.kind() {
            GetStreamErrorKind::JetStream(answer)
                if answer.error_code() == async_nats::jetstream::ErrorCode::STREAM_NOT_FOUND =>
            {
                Ok(0)
            }
            GetStreamErrorKind::JetStream(_)
            | GetStreamErrorKind::EmptyName
            | GetStreamErrorKind::Request
            | GetStreamErrorKind::InvalidStreamName => Err(failed(error)),
        },
    }
}

async fn list(connection: &Connection) -> Result<Objects, ArchiveError> {
    let mut objects = Vec::new();
    for info in bucket(connection).await?.list().await.map_err(failed)? {
        let about = info.metadata.get(ABOUT).map(String::as_str).unwrap_or_default();
        let about = serde_json::from_str(about).map_err(torn(&info.name))?;
        objects.push((info.name, about));
    }
    objects.sort_by_key(|(_, about): &(String, About)| (about.partition, about.first));
    Ok(objects)
}
