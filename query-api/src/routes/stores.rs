//! `GET /stores/{id}/orders`, counts per food, and reviews with their averages.

use axum::{
    extract::{Path, State},
    response::Response,
};
use projector::{
    List, Part,
    view::{
        food_counts::FoodCounts,
        orders::Row,
        places_of,
        ratings::{Ratings, item_key, store_key},
        reviews::Reviews,
        store_orders::StoreOrders,
    },
};
use serde_json::{Value, json};
use service::{Caller, Problem};

use super::{App, order_id};
use crate::read::{Read, store_failed};

pub(super) async fn orders(
    State(app): State<App>,
    Path(store_id): Path<String>,
    mut read: Read,
) -> Result<Response, Problem> {
    let paging = read.paging()?;
    let state = read.take("state");
    read.finish()?;
    let fits = |status: &str| state.as_deref().is_none_or(|wanted| wanted == status);
    let page =
        app.views.list::<StoreOrders>(&places_of(&store_id), paging.after.as_deref(), paging.limit, |row| {
            StoreOrders::of(row).is_some_and(|row| fits(row.status()))
        });
    let page = page.map_err(|error| store_failed(&error))?;
    Ok(read.answer_page(&app, &page.shown(), page.next.as_deref()))
}

pub(super) async fn food_counts(State(app): State<App>, mut read: Read) -> Result<Response, Problem> {
    let top = read.top()?;
    read.finish()?;
    let page =
        app.views.list::<FoodCounts>(&[], None, top, |_| true).map_err(|error| store_failed(&error))?;
    Ok(read.answer_page(&app, &page.shown(), None))
}

pub(super) async fn food_count(
    State(app): State<App>,
    Path(item_id): Path<String>,
    read: Read,
) -> Result<Response, Problem> {
    read.finish()?;
    let row = app.views.row::<FoodCounts>(item_id.as_bytes()).map_err(|error| store_failed(&error))?;
    let nothing = json!({ "item_id": item_id, "name": null, "count": 0 });
    Ok(read.answer(&app, &row.map_or(nothing, |row| FoodCounts::show(&row)), None))
}

/// A review; whose it is, and of which order, only those see who may see the order.
fn seen_review(app: &App, caller: &Caller, row: &Row) -> Value {
    let mut review = <Reviews as List>::show(row);
    if app.sight(caller, row).is_err() {
        for field in ["order_id", "customer_id"] {
            review[field] = Value::Null;
        }
    }
    review
}

pub(super) async fn reviews(State(app): State<App>, mut read: Read) -> Result<Response, Problem> {
    let paging = read.paging()?;
    let order = read.take("order_id").map(|id| order_id(&id)).transpose()?;
    let (store, item) = (read.take("store_id"), read.take("item_id"));
    read.finish()?;
    let page = app.views.list::<Reviews>(&[], paging.after.as_deref(), paging.limit, |row| {
        let Some(review) = Reviews::of(row) else { return false };
        order.is_none_or(|order| order == row.order_id)
            && store.as_deref().is_none_or(|store| review.store_id() == Some(store))
            && item.as_deref().is_none_or(|item| review.has_item(item))
    });
    let page = page.map_err(|error| store_failed(&error))?;
    let items: Vec<_> = page.rows.iter().map(|row| seen_review(&app, &read.caller, row)).collect();
    let mut answer = Read::page(&items, page.next.as_deref());
    for (name, key) in
        [("store_rating", store.map(|id| store_key(&id))), ("item_rating", item.map(|id| item_key(&id)))]
    {
        let Some(key) = key else { continue };
        let rating = app.views.row::<Ratings>(&key).map_err(|error| store_failed(&error))?;
        answer[name] = Ratings::show(&rating.unwrap_or_default());
    }
    Ok(read.answer(&app, &answer, None))
}
