//! Every subject, stream and consumer name, both ways.

use domain::{Context, FlowRef, OrderId};

/// Letters of an order's id as a subject has it: hyphenated, in lower case.
const ID_LENGTH: usize = 36;

/// All orders' subjects of one partition: `orders.<partition>.*`.
pub fn partition_filter(partition: u16) -> String {
    format!("orders.{partition}.*")
}

/// The one subject of an order: `orders.<partition>.<order_id>`.
pub fn order(partition: u16, order_id: OrderId) -> String {
    format!("orders.{partition}.{order_id}")
}

/// The order that a subject belongs to: its own, that of its due deadline, or of its notice.
///
/// Only the spelling that [`order`] writes is an order's. Another spelling of its id is another subject, whose messages
/// nobody who loads the order would see.
pub fn parse_order(subject: &str) -> Option<(u16, OrderId)> {
    let ours = ["orders.", "due.", "notices."].iter().find_map(|begin| subject.strip_prefix(begin));
    let (partition, order_id) = ours?.split_once('.')?;
    let is_plain = partition.bytes().all(|digit| digit.is_ascii_digit());
    let is_canonical =
        order_id.len() == ID_LENGTH && !order_id.bytes().any(|letter| letter.is_ascii_uppercase());
    if !is_plain || (partition.len() > 1 && partition.starts_with('0')) || !is_canonical {
        return None;
    }
    Some((partition.parse().ok()?, order_id.parse().ok()?))
}

/// The order that a subject of this partition belongs to; `None` if it is no order's, or another partition's order's.
pub(crate) fn order_in(subject: &str, partition: u16, partitions: u16) -> Option<OrderId> {
    let (named, order_id) = parse_order(subject)?;
    (named == partition && order_id.partition(partitions) == partition).then_some(order_id)
}

/// The stream that holds a partition: `ORDERS-<partition>`.
pub fn stream(partition: u16) -> String {
    format!("ORDERS-{partition}")
}

/// Where a partition's stream tells of each message once it is stored: `stored.<partition>`.
pub(crate) fn stored(partition: u16) -> String {
    format!("stored.{partition}")
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

pub(crate) fn keepers() -> [String; 2] {
    KEEPERS.map(str::to_owned)
}

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

    #[test]
    fn another_spelling_of_an_orders_subject_is_no_orders() {
        let order_id = OrderId::from_key("a", "b");
        let id = order_id.to_string();
        let simple = id.replace('-', "");
        for foreign in [
            format!("orders.3.{}", id.to_uppercase()),
            format!("orders.3.{simple}"),
            format!("orders.3.urn:uuid:{id}"),
            format!("orders.3.{{{id}}}"),
            format!("orders.3.{id}.more"),
            format!("orders.03.{id}"),
            format!("orders.+3.{id}"),
        ] {
            assert_eq!(parse_order(&foreign), None, "{foreign}");
        }
        let partition = order_id.partition(4);
        let subject = order(partition, order_id);
        assert_eq!(order_in(&subject, partition, 4), Some(order_id));
        assert_eq!(order_in(&subject, partition + 1, 4), None);
        let elsewhere = order((partition + 1) % 4, order_id);
        assert_eq!(order_in(&elsewhere, (partition + 1) % 4, 4), None, "its id says another partition");
    }
}
