//! `GET /riders/…` and `GET /deliveries/open`: what riders did, and what they may do.

use axum::{
    extract::{Path, State},
    response::Response,
};
use domain::sight::Sight;
use projector::{
    Part,
    view::{
        deliveries::Deliveries,
        open_deliveries::{self, OpenDeliveries, OpenDelivery},
        order_key,
        orders::Row,
        places_of,
        rider_counts::RiderCounts,
        rider_deliveries::RiderDeliveries,
    },
};
use service::Problem;

use super::{App, order_id};
use crate::{
    answers,
    read::{Read, store_failed},
};

pub(super) async fn counts(State(app): State<App>, mut read: Read) -> Result<Response, Problem> {
    let top = read.top()?;
    read.finish()?;
    let page = app.list::<RiderCounts>(&read.caller, &[], None, top, |_| true).await?;
    Ok(read.answer_page(&app, &page.shown(), None))
}

pub(super) async fn deliveries(
    State(app): State<App>,
    Path(rider_id): Path<String>,
    mut read: Read,
) -> Result<Response, Problem> {
    let paging = read.paging()?;
    read.finish()?;
    let count = app.views.row::<RiderCounts>(rider_id.as_bytes()).map_err(|error| store_failed(&error))?;
    let places = places_of(&rider_id);
    let page =
        app.list::<RiderDeliveries>(&read.caller, &places, paging.after.as_deref(), paging.limit, |_| true);
    let page = page.await?;
    let answer = answers::RiderDeliveries {
        items: page.shown().into_iter().flatten().collect(),
        next_cursor: read.cursor(page.next.as_deref()),
        rider_id,
        count: count.map_or(0, |row| row.count),
    };
    Ok(read.answer(&app, &answer, None))
}

/// All deliveries, to operators; to the delivery team, theirs.
pub(super) async fn all(State(app): State<App>, mut read: Read) -> Result<Response, Problem> {
    let paging = read.paging()?;
    let order = read.take("order_id").map(|id| order_id(&id)).transpose()?;
    read.finish()?;
    let is_theirs = |row: &Row| app.sight(&read.caller, row).is_ok_and(Sight::sees_address);
    if let Some(order_id) = order {
        let row = app.views.row::<Deliveries>(&order_key(order_id)).map_err(|error| store_failed(&error))?;
        let shown = row.filter(is_theirs).as_ref().and_then(Deliveries::of).map(<Deliveries as Part>::shown);
        return Ok(read.answer_page(&app, shown.as_slice(), None));
    }
    let page = app.list::<Deliveries>(&read.caller, &[], paging.after.as_deref(), paging.limit, is_theirs);
    let page = page.await?;
    Ok(read.answer_page(&app, &page.shown(), page.next.as_deref()))
}

pub(super) async fn open(State(app): State<App>, mut read: Read) -> Result<Response, Problem> {
    let paging = read.paging()?;
    let (region, delivery_type) = (read.take("region"), read.take("delivery_type"));
    read.finish()?;
    let fits = |wanted: &Option<String>, is: Option<&str>| wanted.is_none() || wanted.as_deref() == is;
    let page = app.list::<OpenDeliveries>(&read.caller, &[], paging.after.as_deref(), paging.limit, |row| {
        let fit = |open: &open_deliveries::Row| {
            fits(&region, open.region()) && fits(&delivery_type, open.delivery_type())
        };
        OpenDeliveries::of(row).is_some_and(fit) && app.sight(&read.caller, row).is_ok()
    });
    let page = page.await?;
    let show = |row: &Row| Some(OpenDeliveries::of(row)?.shown_to(app.sight(&read.caller, row).ok()?));
    let items: Vec<OpenDelivery> = page.rows.iter().filter_map(show).collect();
    Ok(read.answer_page(&app, &items, page.next.as_deref()))
}
