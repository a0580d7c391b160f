//! Who may ask what. One order is its parties' to see, which only its row tells; all else, the path tells.

use axum::{
    extract::{MatchedPath, RawPathParams, Request},
    middleware::Next,
    response::{IntoResponse, Response},
};
use domain::access::{Person, Role};
use service::Caller;

/// Whom a query is for; operators may ask them all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Audience {
    /// Everybody who proved who they are.
    Known,
    /// The parties of the order: its handler looks at the row.
    Parties,
    /// The customer, store or rider that the path names.
    Customer,
    Store,
    Rider,
    /// Anybody of this role.
    Any(Role),
    Operators,
}

/// Whom a route is for. What is not named here is the operators' alone.
fn audience(route: &str) -> Audience {
    match route {
        "/orders/{order_id}" | "/orders/{order_id}/events" | "/orders/{order_id}/live" => Audience::Parties,
        "/customers/{customer_id}/orders" | "/customers/{customer_id}/orders/live" => Audience::Customer,
        "/stores/{store_id}/orders" | "/stores/{store_id}/orders/live" => Audience::Store,
        "/riders/{rider_id}/deliveries" => Audience::Rider,
        "/deliveries/open" => Audience::Any(Role::Rider),
        "/deliveries" => Audience::Any(Role::Delivery),
        "/coupons" => Audience::Any(Role::Marketing),
        "/items/order-counts" | "/items/{item_id}/order-count" | "/reviews" | "/flows" | "/flows/{name}" => {
            Audience::Known
        }
        _ => Audience::Operators,
    }
}

/// Lets a query through to those it is for.
pub(crate) async fn check(
    caller: Caller,
    route: MatchedPath,
    named: RawPathParams,
    request: Request,
    next: Next,
) -> Response {
    let id = named.iter().next().map_or("", |(_, value)| value);
    match caller.permit(|person| is_for(person, audience(route.as_str()), id)) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

fn is_for(person: &Person, audience: Audience, id: &str) -> bool {
    person.is(Role::Operator)
        || match audience {
            Audience::Known | Audience::Parties => true,
            Audience::Customer => person.is_customer(id),
            Audience::Store => person.works_for(id),
            Audience::Rider => person.is_rider(id),
            Audience::Any(role) => person.is(role),
            Audience::Operators => false,
        }
}

#[cfg(test)]
mod tests {
    use domain::access::Contact;

    use super::*;

    #[test]
    fn what_is_not_named_is_the_operators_alone() {
        let marketing = Person {
            id: "m".into(),
            roles: [Role::Marketing].into(),
            stores: [].into(),
            contact: Contact::default(),
        };
        assert!(!is_for(&marketing, audience("/something/new"), ""));
        assert!(is_for(&marketing, audience("/coupons"), "") && is_for(&marketing, audience("/flows"), ""));
        assert!(!is_for(&marketing, audience("/payments"), ""));
    }
}
