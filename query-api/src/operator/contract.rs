//! The operator's calls, as data: a document of their own, beside that of the services.

use projector::job::Status;
use serde_json::{Value, json};
use service::contract::{self, Answer, Body, OPERATOR, Operation, Schemas};

use super::{Asked, Canceled, Snapshot, SnapshotList};
use crate::answers::ProgressEvent;

const PROBLEMS: &[u16] = &[400, 401, 403, 404, 409, 503];
const TAG: &str = "rebuilds";
const WHOM: &str = "operators";
const REBUILD: &str = "/admin/views/rebuild";

fn call(
    (id, method, path): (&'static str, &'static str, &'static str),
    summary: &'static str,
    body: Option<Body>,
    answer: Answer,
) -> Operation {
    Operation {
        id,
        tag: TAG,
        method,
        path,
        summary,
        whom: WHOM,
        parameters: Vec::new(),
        body,
        answers: vec![answer],
        problems: PROBLEMS,
    }
}

/// The whole, as an `OpenAPI` document.
pub fn document() -> Value {
    let mut schemas = Schemas::default();
    let operations = [rebuilding(&mut schemas), of_generations(&mut schemas)].concat();
    contract::document(&OPERATOR, &operations, schemas)
}

fn rebuilding(schemas: &mut Schemas) -> Vec<Operation> {
    let status = schemas.answer::<Status>();
    let asked = schemas.body::<Asked>();
    let body = |example: Value| Some(Body { schema: asked.clone(), example, is_optional: true });
    let job = |code: u16| Answer::json(code, status.clone(), &[]);
    let canceled = Answer::json(202, schemas.answer::<Canceled>(), &[]);
    let progress = Answer::stream(&schemas.answer::<ProgressEvent>(), &[]);
    vec![
        call(("getRebuild", "get", REBUILD), "how far the newest rebuild is", None, job(200)),
        call(
            ("startRebuild", "post", REBUILD),
            "rebuilds views beside those that serve: all, one, or those of a moment",
            body(json!({ "swap": false, "events_per_second_max": 0 })),
            job(202),
        ),
        call(("followRebuild", "get", "/admin/views/rebuild/live"), "the same, as it goes", None, progress),
        call(
            ("paceRebuild", "post", "/admin/views/rebuild/pace"),
            "another speed from now on",
            body(json!({ "events_per_second_max": 6000 })),
            job(200),
        ),
        call(
            ("cancelRebuild", "post", "/admin/views/rebuild/cancel"),
            "ends it; what serves is untouched",
            None,
            canceled,
        ),
    ]
}

fn of_generations(schemas: &mut Schemas) -> Vec<Operation> {
    let status = schemas.answer::<Status>();
    let asked = schemas.body::<Asked>();
    let body = |example: Value| Some(Body { schema: asked.clone(), example, is_optional: true });
    let job = |code: u16| Answer::json(code, status.clone(), &[]);
    let snapshots = Answer::json(200, schemas.answer::<SnapshotList>(), &[]);
    let snapshot = Answer::json(200, schemas.answer::<Snapshot>(), &[]);
    vec![
        call(
            ("verifyViews", "post", "/admin/views/verify"),
            "proves that what is served is the fold of the log",
            body(json!({})),
            job(202),
        ),
        call(
            ("swapViews", "post", "/admin/views/swap"),
            "takes the generation that is ready into service",
            body(json!({ "although_it_differs": false })),
            job(200),
        ),
        call(
            ("rollBackViews", "post", "/admin/views/rollback"),
            "goes back to the generation that served before",
            None,
            job(202),
        ),
        call(
            ("listSnapshots", "get", "/admin/views/snapshots"),
            "the snapshots that a new node could start from",
            None,
            snapshots,
        ),
        call(
            ("takeSnapshot", "post", "/admin/views/snapshots"),
            "takes one of what is served",
            None,
            snapshot,
        ),
    ]
}
