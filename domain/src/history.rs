//! Made-up histories that are true to the rules: whole lives of orders, for benchmarks and for tests of views.
//!
//! Every event is decided by the code that runs in production. What people do is drawn from a seed, so the same
//! number is the same life for ever.

use jiff::SignedDuration;

use crate::{
    Timestamp,
    command::Command,
    delivery::DeliveryCommand,
    event::{Event, NotificationSent, OrderPlaced, PaymentRequested, Recorded},
    flow::{CancelMode, Declared, PaymentTime},
    id::{CommandId, EventId, OrderId, Position},
    money::{Currency, Money},
    notification::{self, NotificationCommand},
    order::{Address, Channel, Customer, Line, OrderCommand},
    payment::{self, Charge, Payment, PaymentCommand},
    review::ReviewCommand,
    saga,
    state::OrderState,
    store::StoreCommand,
};

/// No life is longer; what waits then stays as it is.
const EVENTS_MAX: usize = 40;
const STORES: u64 = 200;
const ITEMS: u64 = 1_000;
const RIDERS: u64 = 500;
const SECONDS_BETWEEN: i64 = 40;

/// The life of the order of this number that began at `began`, oldest event first, as its partition would have it if
/// there were no other order.
pub fn life(declared: &Declared, number: u64, began: Timestamp) -> Vec<Recorded> {
    let order_id = OrderId::from_key("history", &number.to_string());
    let mut life = Life {
        declared,
        number,
        draws: 0,
        order_id,
        began,
        state: OrderState::default(),
        events: Vec::new(),
    };
    while life.events.len() < EVENTS_MAX
        && let Some((command_id, event)) = life.by_itself().or_else(|| life.by_people())
    {
        life.record(command_id, event);
    }
    life.tell();
    life.events
}

struct Life<'a> {
    declared: &'a Declared,
    number: u64,
    draws: u64,
    order_id: OrderId,
    began: Timestamp,
    state: OrderState,
    events: Vec<Recorded>,
}

impl Life<'_> {
    /// A number below `limit`, the next of this life's.
    fn draw(&mut self, limit: u64) -> u64 {
        self.draws += 1;
        // SplitMix64 (Steele, Lea, Flood 2014).
        let mut z = self.number.wrapping_mul(0x2545_f491_4f6c_dd1d);
        z = z.wrapping_add(self.draws.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }

    fn record(&mut self, command_id: CommandId, event: Event) {
        let number = self.events.len() + 1;
        let after = SignedDuration::from_secs(SECONDS_BETWEEN * i64::try_from(number).unwrap_or_default());
        let recorded = Recorded {
            order_id: self.order_id,
            position: Position { partition: 0, sequence: number as u64 },
            event_id: EventId::from_command(command_id, event.type_name()),
            time: self.began.checked_add(after).unwrap_or(self.began),
            command_id,
            fingerprint: None,
            event,
        };
        self.state = std::mem::take(&mut self.state).evolve(&recorded);
        self.events.push(recorded);
    }

    fn decide(&self, command: &Command) -> Option<Event> {
        self.state.decide(&self.declared.flow, command).ok().flatten()
    }

    /// What the saga does next, the provider's answers included. It waits for no deadline.
    fn by_itself(&mut self) -> Option<(CommandId, Event)> {
        let step = saga::react(&self.declared.flow, &self.state).filter(|step| step.not_before.is_none())?;
        let command = match step.command {
            Command::SettlePayment => PaymentCommand::Defer { attempt: self.state.payment.attempt() }.into(),
            Command::ReturnPayment => {
                payment::closed(self.state.payment, self.state.order, self.price()).into()
            }
            command @ (Command::Ordering(_)
            | Command::Payment(_)
            | Command::ChargePayment { .. }
            | Command::Store(_)
            | Command::Marketing(_)
            | Command::Delivery(_)
            | Command::Review(_)
            | Command::Notification(_)
            | Command::Saga(_)) => command,
        };
        Some((step.command_id, self.decide(&command)?))
    }

    /// Something that people do now, most often what carries the order on; `None` once nobody does anything.
    fn by_people(&mut self) -> Option<(CommandId, Event)> {
        let (forward, aside) = (self.forward(), self.aside());
        let turns_aside = self.draw(12) == 0;
        let wanted = if turns_aside { [aside, forward] } else { [forward, Vec::new()] };
        for commands in wanted {
            let possible: Vec<Event> = commands.iter().filter_map(|command| self.decide(command)).collect();
            if !possible.is_empty() {
                let chosen = usize::try_from(self.draw(possible.len() as u64)).unwrap_or_default();
                let key = self.events.len().to_string();
                let command_id = CommandId::from_key("history", self.order_id, &key);
                return possible.into_iter().nth(chosen).map(|event| (command_id, event));
            }
        }
        None
    }

    fn forward(&mut self) -> Vec<Command> {
        let rider_id = format!("rider-{}", self.draw(RIDERS));
        let rating = u8::try_from(self.draw(5)).unwrap_or_default() + 1;
        let mut commands = self.pay_and_place();
        let delivery =
            [DeliveryCommand::PickUp { rider_id }, DeliveryCommand::Start, DeliveryCommand::Complete];
        commands.extend(delivery.map(Command::Delivery));
        let returns = [DeliveryCommand::StartReturn, DeliveryCommand::CompleteReturn];
        commands.extend(returns.map(Command::Delivery));
        let store = [StoreCommand::Accept, StoreCommand::Start, StoreCommand::Finish];
        commands.extend(store.map(Command::Store));
        commands.push(Command::Ordering(OrderCommand::Complete));
        let text = "따뜻하게 잘 도착했습니다".to_owned();
        commands.push(Command::Review(ReviewCommand::Write { rating, text }));
        commands
    }

    fn aside(&self) -> Vec<Command> {
        let reason = || Some("changed my mind".to_owned());
        let mut commands = vec![
            Command::Ordering(OrderCommand::RequestCancel { reason: reason() }),
            Command::Ordering(OrderCommand::RequestReturn { reason: reason() }),
            Command::Store(StoreCommand::Reject { reason: Some("sold out".into()) }),
        ];
        if self.declared.flow.cancel.mode == CancelMode::Synchronous {
            commands.push(Command::Delivery(DeliveryCommand::Cancel));
        }
        if let Payment::Requested { attempt, .. } = self.state.payment {
            let declined = Charge::Declined { reason: "insufficient funds".into() };
            commands.push(declined.outcome_of(attempt).into());
        }
        commands
    }

    fn pay_and_place(&mut self) -> Vec<Command> {
        let when = self.declared.flow.payment.when;
        let is_placed = self.state.is_visible();
        if let Payment::Requested { attempt, .. } = self.state.payment {
            let reference = format!("{:016x}", self.draw(u64::MAX));
            return vec![Charge::Approved { reference }.outcome_of(attempt).into()];
        }
        let is_paid = matches!(self.state.payment, Payment::Approved { .. });
        let pays_now = match when {
            PaymentTime::WithOrder => !is_placed && !is_paid,
            PaymentTime::SecondStep => is_placed && !is_paid,
            PaymentTime::None => false,
        };
        if pays_now {
            let (flow, customer_id) = (self.declared.reference.clone(), self.customer());
            let request = PaymentRequested { flow, customer_id, amount: self.price(), method: "card".into() };
            return vec![PaymentCommand::Request(Box::new(request)).into()];
        }
        if is_placed {
            return Vec::new();
        }
        vec![Command::Ordering(OrderCommand::Place(Box::new(self.placed())))]
    }

    /// A tenth of all orders is somebody's first, and some come back often.
    fn customer(&self) -> String {
        format!("customer-{}", self.number / 10)
    }

    fn lines(&self) -> Vec<Line> {
        (0..=self.number % 3)
            .map(|line| {
                let item = (self.number * 7 + line * 331) % ITEMS;
                Line {
                    item_id: format!("item-{item}"),
                    name: format!("김치찌개 {item}"),
                    quantity: 1 + u32::try_from(line).unwrap_or_default(),
                    unit_price: 9_000,
                    options: Vec::new(),
                }
            })
            .collect()
    }

    fn price(&self) -> Money {
        let lines = self.lines().into_iter();
        let amount = lines.map(|line| line.unit_price * i64::from(line.quantity)).sum();
        Money { amount, currency: Currency::WON }
    }

    fn placed(&self) -> OrderPlaced {
        let flow = &self.declared.flow;
        let customer = self.customer();
        let types = &flow.delivery.types;
        let kind = usize::try_from(self.number).unwrap_or_default() % types.len().max(1);
        OrderPlaced {
            flow: self.declared.reference.clone(),
            channel: flow.channels.first().copied().unwrap_or(Channel::Web),
            customer: Customer {
                name: format!("김 {}", self.number / 10),
                phone: Some("010-1234-5678".into()),
                email: Some(format!("{customer}@example.org")),
                id: customer,
                language: None,
            },
            store_id: flow.store.then(|| format!("store-{}", self.number % STORES)),
            lines: self.lines(),
            total: self.price(),
            address: Address {
                line: "세종대로 110".into(),
                region: Some(format!("region-{}", self.number % 25)),
            },
            delivery_type: types.get(kind).cloned(),
            awaits_payment: flow.payment.when == PaymentTime::SecondStep,
        }
    }

    /// The customer is told of what the flow says.
    fn tell(&mut self) {
        let Some(rule) = self.declared.flow.notify.clone() else { return };
        for notice in notification::due(&self.declared.flow, &self.events) {
            let sent = NotificationSent {
                about: notice.about,
                status: notice.status,
                medium: rule.medium,
                language: rule.language,
                to: format!("{}@example.org", self.customer()),
                text: format!("주문 상태가 바뀌었습니다: {}", notice.status.as_str()),
                reference: format!("{}{}", notification::RECORDED_ONLY, notice.about),
            };
            let command = Command::Notification(NotificationCommand::RecordSent(Box::new(sent)));
            if let Some(event) = self.decide(&command) {
                self.record(CommandId::from_step(notice.about, command.name()), event);
            }
        }
    }
}

impl From<PaymentCommand> for Command {
    fn from(command: PaymentCommand) -> Self {
        Self::Payment(command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Flows;

    #[test]
    fn a_hundred_lives_of_every_flow_reach_its_ends_and_can_be_told_again() {
        for declared in Flows::shipped().unwrap().iter() {
            let lives: Vec<_> =
                (0..100).map(|number| life(declared, number, Timestamp::UNIX_EPOCH)).collect();
            let again: Vec<_> =
                (0..100).map(|number| life(declared, number, Timestamp::UNIX_EPOCH)).collect();
            assert_eq!(lives, again);
            let placed = lives.iter().filter(|life| OrderState::replay(*life).is_visible()).count();
            let ended =
                lives.iter().filter(|life| saga::react(&declared.flow, &OrderState::replay(*life)).is_none());
            assert!(placed > 80, "{}: {placed} placed", declared.flow.name);
            assert!(ended.count() > 80, "{}", declared.flow.name);
        }
    }
}
