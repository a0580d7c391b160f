//! One context's rows: `GET /coupons`, `/payments`, `/deliveries`, each `?order_id=`.

use axum::{extract::State, response::Response};
use projector::Part;
use service::Problem;

use super::{App, order_id};
use crate::read::{Read, store_failed};

pub(super) async fn list<P: Part>(State(app): State<App>, mut read: Read) -> Result<Response, Problem> {
    let paging = read.paging()?;
    let order = read.take("order_id");
    read.finish()?;
    if let Some(id) = order {
        let row = app.views.show::<P>(order_id(&id)?).map_err(|error| store_failed(&error))?;
        return Ok(read.answer_page(&app, row.as_slice(), None));
    }
    let page = app.list::<P>(&read.caller, &[], paging.after.as_deref(), paging.limit, |_| true);
    let page = page.await?;
    Ok(read.answer_page(&app, &page.shown(), page.next.as_deref()))
}
