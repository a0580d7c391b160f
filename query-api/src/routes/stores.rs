//! `GET /stores/{id}/orders`, counts per food, and reviews with their averages.

use axum::{
    extract::{Path, State},
    response::Response,
};
use projector::{
    List, Part,
    view::{
        food_counts::{FoodCounts, ItemCount},
        orders::{Row, StoreStatus},
        places_of,
        ratings::{Rating, Ratings, item_key, store_key},
        reviews::{Review, Reviews},
        store_orders::StoreOrders,
    },
};
use service::{Caller, Problem};

use super::{App, order_id};
use crate::{
    answers,
    read::{Read, store_failed},
};

pub(super) async fn orders(
    State(app): State<App>,
    Path(store_id): Path<String>,
    mut read: Read,
) -> Result<Response, Problem> {
    let paging = read.paging()?;
    let state = read.take_one_of("state", &StoreStatus::ALL.map(StoreStatus::as_str))?;
    read.finish()?;
    let fits = |status: &str| state.is_none_or(|wanted| wanted == status);
    let places = places_of(&store_id);
    let page = app.list::<StoreOrders>(&read.caller, &places, paging.after.as_deref(), paging.limit, |row| {
        StoreOrders::of(row).is_some_and(|row| fits(row.status()))
    });
    let page = page.await?;
    Ok(read.answer_page(&app, &page.shown(), page.next.as_deref()))
}

pub(super) async fn food_counts(State(app): State<App>, mut read: Read) -> Result<Response, Problem> {
    let top = read.top()?;
    read.finish()?;
    let page = app.list::<FoodCounts>(&read.caller, &[], None, top, |_| true).await?;
    Ok(read.answer_page(&app, &page.shown(), None))
}

pub(super) async fn food_count(
    State(app): State<App>,
    Path(item_id): Path<String>,
    read: Read,
) -> Result<Response, Problem> {
    read.finish()?;
    let row = app.views.row::<FoodCounts>(item_id.as_bytes()).map_err(|error| store_failed(&error))?;
    let nothing = ItemCount { item_id, name: None, count: 0 };
    Ok(read.answer(&app, &row.map_or(nothing, |row| FoodCounts::shown(&row)), None))
}

/// A review; whose it is, and of which order, only those see who may see the order.
fn seen_review(app: &App, caller: &Caller, row: &Row) -> Option<Review> {
    let review = <Reviews as Part>::shown(Reviews::of(row)?);
    Some(if app.sight(caller, row).is_err() { review.without_its_writer() } else { review })
}

pub(super) async fn reviews(State(app): State<App>, mut read: Read) -> Result<Response, Problem> {
    let paging = read.paging()?;
    let order = read.take("order_id").map(|id| order_id(&id)).transpose()?;
    let (store, item) = (read.take("store_id"), read.take("item_id"));
    read.finish()?;
    let page = app.list::<Reviews>(&read.caller, &[], paging.after.as_deref(), paging.limit, |row| {
        let Some(review) = Reviews::of(row) else { return false };
        order.is_none_or(|order| order == row.order_id)
            && store.as_deref().is_none_or(|store| review.store_id() == Some(store))
            && item.as_deref().is_none_or(|item| review.has_item(item))
    });
    let page = page.await?;
    let rating = |key: Vec<u8>| -> Result<Rating, Problem> {
        let rating = app.views.row::<Ratings>(&key).map_err(|error| store_failed(&error))?;
        Ok(Ratings::shown(&rating.unwrap_or_default()))
    };
    let answer = answers::Reviews {
        items: page.rows.iter().filter_map(|row| seen_review(&app, &read.caller, row)).collect(),
        next_cursor: read.cursor(page.next.as_deref()),
        store_rating: store.map(|id| rating(store_key(&id))).transpose()?,
        item_rating: item.map(|id| rating(item_key(&id))).transpose()?,
    };
    Ok(read.answer(&app, &answer, None))
}
