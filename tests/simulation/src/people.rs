//! People and their calls: what they do is drawn, most often what carries their order on; they repeat what got no
//! answer, and remember what they were told.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use command_svc::{
    body::{PaymentMeans, Placement},
    checkout::{Checkout, CheckoutError},
    execute::{ExecuteError, Executed, Intent},
};
use domain::{
    Command, CommandId, OrderId, OrderState,
    command::SagaCommand,
    delivery::DeliveryCommand,
    explore::people,
    flow::{CancelMode, Declared, PaymentTime, ProviderDown},
    notification,
    order::OrderCommand,
    review::ReviewCommand,
    store::StoreCommand,
};
use tokio::time::{sleep, timeout};

use crate::{
    history::{Call, Told},
    net::{Line, Net},
};

/// Times that a call is repeated while nothing is known.
const TRIES_MAX: u32 = 6;
/// Times that a customer tries to pay an order that stands.
const PAYMENTS_MAX: u32 = 2;
/// How long people wait for an answer.
const PATIENCE: Duration = Duration::from_secs(12);
/// How long people think at most, most often.
const THOUGHT: Duration = Duration::from_secs(4);
/// What one person does at most.
const DEEDS_MAX: u32 = 7;

/// An order and all who have to do with it.
pub struct Around {
    pub net: Arc<Net>,
    pub declared: Declared,
    pub order_id: OrderId,
    calls: Mutex<Vec<Call>>,
    clock: Arc<AtomicU64>,
    are_told: bool,
}

/// What is asked of the platform.
#[derive(Clone)]
enum Wish {
    Place(Box<Placement>),
    Pay {
        token: &'static str,
    },
    CancelWithConsent,
    Do {
        command: Command,
        /// It holds only for the story that ends here.
        expected: Option<u64>,
    },
}

impl Wish {
    fn name(&self) -> &'static str {
        match self {
            Self::Place(_) => "place",
            Self::Pay { .. } => "pay",
            Self::CancelWithConsent => "cancel, with the delivery's consent",
            Self::Do { command, .. } => command.name(),
        }
    }
}

impl Around {
    /// With `are_told`, customers are told of changes.
    pub fn new(net: &Arc<Net>, declared: &Declared, clock: &Arc<AtomicU64>, are_told: bool) -> Arc<Self> {
        let order_id = OrderId(net.chance.uuid());
        let (net, declared, clock) = (Arc::clone(net), declared.clone(), Arc::clone(clock));
        Arc::new(Self { net, declared, order_id, calls: Mutex::default(), clock, are_told })
    }

    /// What was asked and told.
    pub fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::Relaxed)
    }

    fn state(&self) -> OrderState {
        let server = self.net.server();
        server.stories().get(&self.order_id).map(OrderState::replay).unwrap_or_default()
    }

    /// Whether the customer is still to be told something.
    fn untold(&self) -> bool {
        let server = self.net.server();
        let story = server.stories().get(&self.order_id).map(Vec::as_slice).unwrap_or_default();
        self.are_told && !notification::due(&self.declared.flow, story).is_empty()
    }

    fn token(&self) -> &'static str {
        if self.net.chance.permille(850) { "good" } else { "bad" }
    }

    /// The customer places the order.
    pub async fn order(self: Arc<Self>) {
        sleep(self.net.chance.while_up_to(THOUGHT)).await;
        let (flow, reference) = (&self.declared.flow, &self.declared.reference);
        let waits = flow.payment.when == PaymentTime::SecondStep;
        let with_order = flow.payment.when == PaymentTime::WithOrder;
        let payment =
            with_order.then(|| PaymentMeans { method: "card".into(), token: self.token().to_owned() });
        let mut placed = people::placed(flow, reference, waits);
        if self.are_told && self.net.chance.permille(800) {
            placed.customer.phone = Some("010-1234-5678".into());
            placed.customer.email = Some("customer@example.org".into());
        }
        let defers = flow.payment.provider_down == ProviderDown::Defer;
        self.insist(Wish::Place(Box::new(Placement { placed, payment, defers }))).await;
    }

    /// Somebody does what they find to do.
    pub async fn live(self: Arc<Self>) {
        let mut payments = 0;
        for _ in 0..DEEDS_MAX {
            sleep(self.net.chance.while_up_to(THOUGHT)).await;
            let Some(wish) = self.wish(&mut payments) else { continue };
            self.insist(wish).await;
        }
    }

    fn wish(&self, payments: &mut u32) -> Option<Wish> {
        let (chance, state) = (&self.net.chance, self.state());
        let (flow, reference) = (&self.declared.flow, &self.declared.reference);
        if state.awaits_payment() && *payments < PAYMENTS_MAX && chance.permille(600) {
            *payments += 1;
            return Some(Wish::Pay { token: self.token() });
        }
        let mut commands: Vec<Command> =
            people::commands(flow, reference, &state).into_iter().map(|(_, command)| command).collect();
        // Placing is the customer's, with all that belongs to it.
        commands.retain(|command| !matches!(command, Command::Ordering(OrderCommand::Place(_))));
        if chance.permille(850) {
            commands
                .retain(|command| !turns_back(command) && matches!(state.decide(flow, command), Ok(Some(_))));
        }
        let command = chance.one(&commands)?.clone();
        let archives = matches!(command, Command::Saga(SagaCommand::Archive));
        // Whoever archives sees to it that there is nothing left to tell, and will be none.
        if archives && self.untold() {
            return None;
        }
        let synchronous = flow.cancel.mode == CancelMode::Synchronous;
        if synchronous && matches!(command, Command::Delivery(DeliveryCommand::Cancel)) {
            return Some(Wish::CancelWithConsent);
        }
        let expected = archives.then(|| state.sequence());
        Some(Wish::Do { command, expected })
    }

    /// Calls until something is known, or patience ends.
    async fn insist(self: &Arc<Self>, wish: Wish) {
        let command_id = CommandId(self.net.chance.uuid());
        for _ in 0..TRIES_MAX {
            let processes = self.net.processes();
            if let Some(process) = self.net.chance.one(&processes) {
                self.net.tell(|| format!("somebody calls process {}: {}", process.number, wish.name()));
                let began = self.tick();
                let (around, checkout, asked) = (Arc::clone(self), process.checkout.clone(), wish.clone());
                let answer = process.run(async move { around.ask(&checkout, command_id, asked).await });
                let answer = timeout(PATIENCE, answer).await.ok().and_then(Result::ok);
                let ended = self.tick();
                self.net.tell(|| match &answer {
                    Some(Ok(executed)) => format!("{}: {}", wish.name(), executed.state.status().as_str()),
                    Some(Err(error)) => format!("{}: {}", wish.name(), nats::causes(error)),
                    None => format!("{}: no answer", wish.name()),
                });
                let told = answer.as_ref().map_or(Told::Nothing, told);
                let is_known = answer.as_ref().is_some_and(is_known);
                let command = if let Wish::Do { command, .. } = &wish { Some(command.clone()) } else { None };
                let call = Call { order_id: self.order_id, command_id, command, began, ended, told };
                self.calls.lock().unwrap_or_else(PoisonError::into_inner).push(call);
                if is_known {
                    return;
                }
            }
            sleep(self.net.chance.while_up_to(THOUGHT)).await;
        }
    }

    /// In the process that was called.
    async fn ask(
        &self,
        checkout: &Checkout<Line>,
        command_id: CommandId,
        wish: Wish,
    ) -> Result<Executed, CheckoutError> {
        let intent = |command| Intent {
            order_id: self.order_id,
            command,
            command_id,
            causation_id: None,
            expected: None,
            fingerprint: Some("the same".into()),
            trace_parent: None,
        };
        let cancel = Command::Ordering(OrderCommand::Cancel);
        let admitted = checkout.executor.admission().count();
        match wish {
            Wish::Place(placement) => checkout.place(intent(cancel), *placement, &admitted).await,
            Wish::Pay { token } => {
                let bill = checkout.bill(self.order_id, "card".into()).await?;
                checkout.pay(intent(cancel), bill, token.into(), &admitted).await
            }
            Wish::CancelWithConsent => checkout.cancel_with_consent(intent(cancel), &admitted).await,
            Wish::Do { command, expected } => {
                Ok(checkout.executor.execute(Intent { expected, ..intent(command) }).await?)
            }
        }
    }
}

/// What ends an order rather than carries it on.
fn turns_back(command: &Command) -> bool {
    matches!(
        command,
        Command::Ordering(OrderCommand::RequestCancel { .. } | OrderCommand::RequestReturn { .. })
            | Command::Store(StoreCommand::Reject { .. })
            | Command::Delivery(DeliveryCommand::Cancel)
            | Command::Review(ReviewCommand::Write { .. })
    )
}

fn told(answer: &Result<Executed, CheckoutError>) -> Told {
    match answer {
        Ok(executed) => Told::Stands {
            sequence: executed.state.sequence(),
            status: executed.state.status(),
            event: executed.event.as_ref().map(|stored| stored.recorded.event_id),
        },
        Err(CheckoutError::Execute(ExecuteError::Refused(refusal))) => Told::Refused(*refusal),
        Err(
            CheckoutError::Execute(_)
            | CheckoutError::Declined(_)
            | CheckoutError::PaymentUnavailable
            | CheckoutError::LogUnavailable(_)
            | CheckoutError::DeliveryUnavailable,
        ) => Told::Nothing,
    }
}

/// Whether there is no reason to call again.
fn is_known(answer: &Result<Executed, CheckoutError>) -> bool {
    let declined_or_refused =
        matches!(answer, Err(CheckoutError::Declined(_) | CheckoutError::Execute(ExecuteError::Refused(_))));
    answer.is_ok() || declined_or_refused
}
