//! `GET /notifications`: what customers were told, the newest order first.

use axum::{extract::State, response::Response};
use projector::view::{
    notifications::{Notification, Notifications, Told, told},
    order_key,
    orders::{Orders, Row},
};
use service::Problem;

use super::{App, order_id};
use crate::{
    pages::{self, off_threads},
    read::{Read, store_failed},
};

/// Rows that one page looks at, wanted or not, before it ends short.
const LOOKED_AT_MAX: usize = 5_000;

/// Where a page goes on: after an order's place, and how many rows of the next order are left, if not all.
struct From {
    after: Option<Vec<u8>>,
    left: Option<u16>,
}

impl From {
    fn cursor(after: Option<Vec<u8>>, left: u16) -> Vec<u8> {
        [after.unwrap_or_default(), left.to_be_bytes().to_vec()].concat()
    }

    fn read(cursor: Option<Vec<u8>>) -> Result<Self, Problem> {
        let Some(cursor) = cursor else { return Ok(Self { after: None, left: None }) };
        let (place, left) =
            cursor.split_last_chunk().ok_or_else(|| Problem::malformed("the cursor does not read"))?;
        let left = u16::from_be_bytes(*left);
        Ok(Self { after: (!place.is_empty()).then(|| place.to_vec()), left: (left > 0).then_some(left) })
    }
}

pub(super) async fn list(State(app): State<App>, mut read: Read) -> Result<Response, Problem> {
    let paging = read.paging()?;
    let order = read.take("order_id").map(|id| order_id(&id)).transpose()?;
    let failed = read.take_truth("failed")?;
    read.finish()?;
    let wanted = |row: &Row| -> Vec<Notification> {
        let fits = |told: &Told| failed.is_none_or(|wanted| wanted == told.is_failed());
        told(row).filter(fits).map(|told| told.shown(row)).collect()
    };
    let mut from = From::read(paging.after)?;
    let building = pages::turn(&read.caller).await?;
    let (mut items, mut next, mut looked_at) = (Vec::new(), None, 0);
    loop {
        let (row, after) = if let Some(order_id) = order {
            let row = app.views.row::<Orders>(&order_key(order_id));
            (row.map_err(|error| store_failed(&error))?, None)
        } else {
            let is_wanted = |row: &Row| !wanted(row).is_empty();
            let bounds = (1, LOOKED_AT_MAX - looked_at);
            let after = from.after.as_deref();
            let page = off_threads(|| app.views.list_within::<Notifications>(&[], after, bounds, is_wanted));
            let page = page.map_err(|error| store_failed(&error))?;
            looked_at += page.looked_at;
            (page.rows.into_iter().next(), page.next)
        };
        let is_found = row.is_some();
        let mut rows = row.map_or_else(Vec::new, |row| wanted(&row));
        if let Some(left) = from.left.take() {
            // The newer ones are on the page before, or came since.
            rows.drain(..rows.len().saturating_sub(left.into()));
        }
        let rest = rows.split_off(rows.len().min(paging.limit - items.len()));
        items.extend(rows);
        if !rest.is_empty() {
            next = Some(From::cursor(from.after, u16::try_from(rest.len()).unwrap_or(u16::MAX)));
            break;
        }
        let Some(after) = after else { break };
        if !is_found || items.len() == paging.limit || looked_at >= LOOKED_AT_MAX {
            next = Some(From::cursor(Some(after), 0));
            break;
        }
        from.after = Some(after);
    }
    let answer = read.answer_page(&app, &items, next.as_deref());
    drop(building);
    Ok(answer)
}
