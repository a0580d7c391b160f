//! Every subject, stream and consumer name, both ways.

use domain::{Context, OrderId};

/// All orders' subjects of one partition: `orders.<partition>.*`.
pub fn partition_filter(partition: u16) -> String {
    format!("orders.{partition}.*")
}

/// The one subject of an order: `orders.<partition>.<order_id>`.
pub fn order(partition: u16, order_id: OrderId) -> String {
    format!("orders.{partition}.{order_id}")
}

/// The order that a subject belongs to.
pub fn parse_order(subject: &str) -> Option<(u16, OrderId)> {
    let (partition, order_id) = subject.strip_prefix("orders.")?.split_once('.')?;
    Some((partition.parse().ok()?, order_id.parse().ok()?))
}

/// The stream that holds a partition: `ORDERS-<partition>`.
pub fn stream(partition: u16) -> String {
    format!("ORDERS-{partition}")
}

/// The durable consumer of a partition's saga runner.
pub const SAGA_CONSUMER: &str = "saga";

/// Where a context takes commands.
pub(crate) fn commands(context: Context) -> String {
    format!("twelve.{}.decide", context.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_orders_subject_names_its_partition_and_its_id() {
        let order_id = OrderId::from_key("a", "b");
        assert_eq!(parse_order(&order(3, order_id)), Some((3, order_id)));
        for foreign in ["orders.3", "orders.x.y", "twelve.payment.charge", ""] {
            assert_eq!(parse_order(foreign), None, "{foreign}");
        }
    }
}
