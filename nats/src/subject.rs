//! Every subject, stream and consumer name, both ways.

use domain::{Context, FlowRef, OrderId};

/// All orders' subjects of one partition: `orders.<partition>.*`.
pub fn partition_filter(partition: u16) -> String {
    format!("orders.{partition}.*")
}

/// The one subject of an order: `orders.<partition>.<order_id>`.
pub fn order(partition: u16, order_id: OrderId) -> String {
    format!("orders.{partition}.{order_id}")
}

/// The order that a subject belongs to: its own, that of its due deadline, or of its notice.
pub fn parse_order(subject: &str) -> Option<(u16, OrderId)> {
    let ours = ["orders.", "due.", "notices."].iter().find_map(|begin| subject.strip_prefix(begin));
    let (partition, order_id) = ours?.split_once('.')?;
    Some((partition.parse().ok()?, order_id.parse().ok()?))
}

/// The stream that holds a partition: `ORDERS-<partition>`.
pub fn stream(partition: u16) -> String {
    format!("ORDERS-{partition}")
}

/// The stream of the deadlines that are set, and of those that came due.
pub(crate) const DEADLINES_STREAM: &str = "DEADLINES";

/// Where an order's deadline is set: `deadlines.<partition>.<order_id>`.
pub fn deadline(partition: u16, order_id: OrderId) -> String {
    format!("deadlines.{partition}.{order_id}")
}

/// Where an order's deadline comes due: `due.<partition>.<order_id>`.
pub fn due(partition: u16, order_id: OrderId) -> String {
    format!("due.{partition}.{order_id}")
}

/// All due deadlines of one partition.
pub fn due_filter(partition: u16) -> String {
    format!("due.{partition}.*")
}

/// The stream of the notices that wait.
pub(crate) const NOTICES_STREAM: &str = "NOTICES";

/// Where an order's notice waits: `notices.<partition>.<order_id>`.
pub fn notice(partition: u16, order_id: OrderId) -> String {
    format!("notices.{partition}.{order_id}")
}

/// All notices of one partition.
pub fn notice_filter(partition: u16) -> String {
    format!("notices.{partition}.*")
}

/// What lies in the work queues for good: in no partition, so that no worker is handed it.
pub(crate) const KEEPERS: [&str; 2] = ["deadlines.keep.keep", "notices.keep.keep"];

/// The stream of the flows' texts.
pub(crate) const FLOWS_STREAM: &str = "FLOWS";

/// Where a version of a flow is kept: `flows.<name>.<version>`.
pub fn flow(reference: &FlowRef) -> String {
    format!("flows.{}.{}", reference.name, reference.version)
}

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
