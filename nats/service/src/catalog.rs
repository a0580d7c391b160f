//! Every metric with its help text: what it counts or shows, for people who find it in `/metrics`.

use metrics::{describe_counter, describe_gauge, describe_histogram};

enum Kind {
    Counter,
    Gauge,
    Histogram,
}
use Kind::{Counter, Gauge, Histogram};

/// Name, kind, help. A test holds it against what the sources measure.
const ALL: &[(&str, Kind, &str)] = &[
    ("twelve_answers_cut_total", Counter, "Answers that were given up because they were not read, by reason"),
    (
        "twelve_append_ambiguous_total",
        Counter,
        "Appends whose acknowledgement was lost, and that were looked up",
    ),
    ("twelve_append_batched_total", Counter, "Events that were appended in batches"),
    ("twelve_append_batches_refused_total", Counter, "Batches that nats-server refused as a whole"),
    ("twelve_append_batches_total", Counter, "Batches that were appended"),
    ("twelve_append_conflicts_total", Counter, "Appends that came second to another event of the same order"),
    ("twelve_append_seconds", Histogram, "Time of one append, until nats-server acknowledged it"),
    ("twelve_as_of_kept", Gauge, "Views of past moments that are kept for further queries"),
    ("twelve_auth_keys_total", Counter, "Fetches of the issuer's key set, by outcome"),
    ("twelve_auth_total", Counter, "Tokens that were checked, by outcome"),
    ("twelve_bodies_bytes", Gauge, "Bytes of bodies that are being received"),
    ("twelve_bodies_refused_total", Counter, "Bodies that were not received to their end, by reason"),
    ("twelve_breaker_held", Gauge, "1 while an operator holds the circuit breaker of this call"),
    (
        "twelve_breaker_rejected_total",
        Counter,
        "Calls that were not made because their circuit breaker was open",
    ),
    ("twelve_breaker_state", Gauge, "The circuit breaker of this call: 0 closed, 1 half open, 2 open"),
    (
        "twelve_breaker_transitions_total",
        Counter,
        "Changes of the circuit breaker of this call, by the new state",
    ),
    ("twelve_calls_out", Gauge, "Commands that wait for a payment or a delivery"),
    ("twelve_commands_at_once_max", Gauge, "Commands that are admitted at a time, as the log keeps up"),
    ("twelve_commands_total", Counter, "Commands that were decided, by outcome"),
    ("twelve_connections", Gauge, "Connections that are open"),
    ("twelve_connections_cut_total", Counter, "Connections that were ended by this side, by reason"),
    ("twelve_connections_refused_total", Counter, "Connections that were not accepted, by bound"),
    (
        "twelve_deadlines_early_total",
        Counter,
        "Deadlines that came early by this machine's clock, and were waited for",
    ),
    ("twelve_deadlines_set_total", Counter, "Deadlines that were set for orders"),
    ("twelve_http_request_seconds", Histogram, "Time of one call, by method and route"),
    ("twelve_http_requests_total", Counter, "Calls that were answered, by method, route and status"),
    ("twelve_ledger_bookings_total", Counter, "Bookings that were written to the ledger"),
    ("twelve_ledger_position", Gauge, "The last sequence of the partition that is booked in the ledger"),
    ("twelve_ledger_up", Gauge, "1 while the ledger follows the log, 0 while it does not"),
    ("twelve_live_ended_total", Counter, "Live streams that were ended by this side, by reason"),
    ("twelve_live_followers", Gauge, "Live streams that are open"),
    ("twelve_live_resumed_total", Counter, "Live streams that were resumed, by where from"),
    ("twelve_log_events_lost", Gauge, "Events of the partition that the log once had, and has no more"),
    ("twelve_log_events_missing_total", Counter, "Events that the log lacks, as readers met the gaps"),
    (
        "twelve_log_follow_failures_total",
        Counter,
        "Times that a follower of a partition of the log could not go on, and began again",
    ),
    (
        "twelve_log_pages_torn_total",
        Counter,
        "Pages of the log that lost messages on their way, and were asked for again",
    ),
    ("twelve_notification_retries_total", Counter, "Messages to customers that could not be sent yet"),
    ("twelve_notifications_total", Counter, "Messages to customers, by medium and outcome"),
    (
        "twelve_orders_overdue",
        Gauge,
        "Orders whose deadline passed more than a minute ago, and that still stand",
    ),
    (
        "twelve_reads_unanswered_total",
        Counter,
        "Reads of the log that got no answer in time, and were made again",
    ),
    ("twelve_rebuild_events", Gauge, "Events that the running rebuild of the views has folded"),
    ("twelve_rebuild_events_total", Gauge, "Events that the running rebuild of the views has to fold"),
    ("twelve_refused_total", Counter, "Calls that were refused because there were too many, by reason"),
    ("twelve_saga_orders_active", Gauge, "Orders that the saga is working on in this process"),
    ("twelve_saga_parked_total", Counter, "Orders that were parked, by step"),
    ("twelve_saga_retries_total", Counter, "Steps of the saga that are to be tried again, by step"),
    ("twelve_saga_step_seconds", Histogram, "Time of one step of the saga, by step"),
    (
        "twelve_shares_refused_total",
        Counter,
        "Calls that were refused because a caller had its share, by kind and bound",
    ),
    ("twelve_unread_bytes", Gauge, "Bytes of answers that callers have not taken yet"),
    ("twelve_view_behind_events", Gauge, "Events of the partition that the views have not folded yet"),
    ("twelve_view_commit_seconds", Histogram, "Time of one commit of the views"),
    ("twelve_view_commits_total", Counter, "Commits of the views"),
    ("twelve_view_messages_quarantined", Gauge, "Messages on the log that are no order's, and are not read"),
    ("twelve_view_orders_quarantined", Gauge, "Orders with an event that this program cannot read"),
    (
        "twelve_view_outdated",
        Gauge,
        "1 while this node serves views of an older definition, which do not move until they are built anew",
    ),
    ("twelve_view_position", Gauge, "The last sequence of the partition that is visible in the views"),
    ("twelve_view_snapshot_seconds", Histogram, "Time that a snapshot of the views took"),
    ("twelve_view_stopped", Gauge, "1 while the views of this node do not go on"),
    ("twelve_view_waiters", Gauge, "Queries that wait for the views to reach a position"),
    ("twelve_work_queue_unavailable", Gauge, "1 while the work queue is not there, or is paused"),
    ("twelve_work_behind_events", Gauge, "Entries of the work queue of the partition that are not done yet"),
    (
        "twelve_work_quarantined_total",
        Counter,
        "Messages of work queues that are no order's, and are not read",
    ),
    ("twelve_partition_bytes", Gauge, "Bytes that the partition of the log takes"),
    ("twelve_partition_bytes_max", Gauge, "Bytes that the partition of the log may take"),
];

/// Gives each metric its help text; after the recorder is there.
pub(crate) fn describe() {
    for &(name, ref kind, help) in ALL {
        match kind {
            Counter => describe_counter!(name, help),
            Gauge => describe_gauge!(name, help),
            Histogram => describe_histogram!(name, help),
        }
    }
}
