//! Who may do what on the nats-server: a user with a key of its own for each kind of process, and what each needs, by
//! the very names that [`crate::subject`] gives.
//!
//! A permission is on a call's subject; it reaches neither the call's body nor the subject that the answer is asked to.
//! So two things hold besides (ADR 27). Calls whose body can do harm are given to the set-up key alone: those that
//! make, change, back up or restore a stream, a bucket or a consumer. And all others but `command` are each in an
//! account of its own, into which the calls that it needs are imported: what the server answers stays in that account,
//! wherever it was asked to, and reaches neither a stream nor another's inbox.

use std::collections::BTreeMap;

use crate::{
    archive, objects, snapshots, subject,
    topology::{OldOrders, Topology},
    worklist::List,
};

/// A kind of process that connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum User {
    /// `twelve nats setup`: makes and changes streams, buckets and work queues, backs them up and restores them. Kept
    /// away from processes.
    Setup,
    /// `command-svc`: appends events, sets deadlines, answers other contexts.
    Command,
    /// `query-api` and `projector`: read the log, keep snapshots of views, and write no event.
    Views,
    /// People and tools that look after the log.
    Operator,
    /// `twelve archive`: appends the last event of orders that are over, and moves them out of the log.
    Archivist,
    /// People and tools that look at single events.
    Inspector,
    /// NACK, the controller of the NATS project for Kubernetes: makes and changes the streams and buckets of the log,
    /// where they are declared as its resources. Only where it is asked for: it may do to a stream what the set-up key
    /// may.
    Nack,
}

/// The account of the log and of those who write it.
const ACCOUNT: &str = "TWELVE";

/// What an account of its own is given by the account of the log.
enum Import {
    /// A call with one answer.
    Call(String),
    /// A call with many.
    Calls(String),
    /// What is told on these subjects.
    Told(String),
}

impl User {
    pub const ALL: [Self; 7] = [
        Self::Setup,
        Self::Command,
        Self::Views,
        Self::Operator,
        Self::Archivist,
        Self::Inspector,
        Self::Nack,
    ];

    /// The user's name in file names.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Setup => "setup",
            Self::Command => "command",
            Self::Views => "views",
            Self::Operator => "operator",
            Self::Archivist => "archivist",
            Self::Inspector => "inspector",
            Self::Nack => "nack",
        }
    }

    /// The account of its own, of all but those who make the log and who answer others.
    const fn account(self) -> Option<&'static str> {
        match self {
            Self::Setup | Self::Command => None,
            Self::Archivist => Some("TWELVE-ARCHIVIST"),
            Self::Views => Some("TWELVE-VIEWS"),
            Self::Operator => Some("TWELVE-OPERATOR"),
            Self::Inspector => Some("TWELVE-INSPECTOR"),
            Self::Nack => Some("TWELVE-NACK"),
        }
    }

    /// The subjects on which this user may publish, of a log of so many partitions.
    pub fn publishes(self, partitions: u16) -> Vec<String> {
        let look = [
            "INFO",
            "STREAM.NAMES",
            "STREAM.LIST",
            "STREAM.INFO.*",
            "STREAM.MSG.GET.*",
            "DIRECT.GET.*",
            "DIRECT.GET.*.>",
            "CONSUMER.NAMES.*",
            "CONSUMER.LIST.*",
            "CONSUMER.INFO.*.*",
        ];
        let purge = |stream: &str| format!("$JS.API.STREAM.PURGE.{stream}");
        let mut own: Vec<String> = match self {
            Self::Setup => {
                let make = ["STREAM.CREATE.*", "STREAM.UPDATE.*", "CONSUMER.>"];
                // A backup goes to a subject that its call names, so no process may ask for one.
                let copy = ["STREAM.SNAPSHOT.*", "STREAM.RESTORE.*"];
                let calls = make.into_iter().chain(copy).map(|call| format!("$JS.API.{call}"));
                let chunks = ["ACK", "RESTORE"].map(|part| format!("$JS.SNAPSHOT.{part}.*.*"));
                calls.chain(chunks).chain(subject::keepers()).collect()
            }
            Self::Command => {
                let write = ["orders.*.*", "deadlines.*.*", "notices.*.*", "flows.*.*", "twelve.*.decide"];
                (0..partitions).flat_map(work).chain(write.map(str::to_owned)).collect()
            }
            Self::Views => {
                vec![purge(&objects::stream(snapshots::BUCKET)), format!("$O.{}.>", snapshots::BUCKET)]
            }
            Self::Operator => vec!["$SRV.>".into()],
            Self::Archivist => {
                let remove = (0..partitions).map(|partition| purge(&subject::stream(partition)));
                remove.chain(["orders.*.*".into(), format!("$O.{}.>", archive::BUCKET)]).collect()
            }
            Self::Inspector => Vec::new(),
            Self::Nack => return keeping_streams(partitions),
        };
        own.extend(look.map(|call| format!("$JS.API.{call}")));
        own
    }

    fn subscribes(self, nkey: &str) -> Vec<String> {
        if self == Self::Nack {
            // It cannot be told where to ask for its answers; in an account of its own there are no others'.
            return vec!["_INBOX.>".to_owned()];
        }
        let mut own = vec![format!("{}.>", inbox(nkey)), "stored.*".to_owned()];
        if self == Self::Command {
            own.extend(["twelve.*.decide".to_owned(), "$SRV.>".to_owned()]);
        }
        own
    }

    /// What is imported into the account of its own.
    fn imports(self, partitions: u16) -> Vec<Import> {
        let mut imports = Vec::new();
        if self != Self::Nack {
            imports.push(Import::Told("stored.*".into()));
        }
        imports.extend(self.publishes(partitions).into_iter().map(|subject| {
            if subject == "$JS.API.DIRECT.GET.*" || subject == "$SRV.>" {
                Import::Calls(subject)
            } else {
                Import::Call(subject)
            }
        }));
        imports
    }

    /// The user as the server's configuration has it.
    fn entry(self, nkey: &str, partitions: u16) -> String {
        let list = |subjects: Vec<String>| {
            subjects.iter().map(|subject| format!("\"{subject}\"")).collect::<Vec<_>>().join(", ")
        };
        let (name, allow) = (self.name(), list(self.publishes(partitions)));
        let subscribe = list(self.subscribes(nkey));
        // Who answers requests may publish where it was asked to.
        let answers =
            if self == Self::Command { "\n        allow_responses: { max: 1, expires: \"1m\" }" } else { "" };
        format!(
            "      # {name}\n      {{ nkey: {nkey}, permissions: {{\n        \
             publish: {{ allow: [{allow}] }}\n        \
             subscribe: {{ allow: [{subscribe}] }}{answers}\n      }} }}\n"
        )
    }
}

impl Import {
    fn subject(&self) -> &str {
        match self {
            Self::Call(subject) | Self::Calls(subject) | Self::Told(subject) => subject,
        }
    }

    /// As the account of the log exports it to that account.
    fn exported(&self, to: &str) -> String {
        match self {
            Self::Call(subject) => format!("      {{ service: \"{subject}\", accounts: [{to}] }}\n"),
            Self::Calls(subject) => {
                format!("      {{ service: \"{subject}\", response_type: stream, accounts: [{to}] }}\n")
            }
            Self::Told(subject) => format!("      {{ stream: \"{subject}\", accounts: [{to}] }}\n"),
        }
    }

    /// As that account imports it.
    fn imported(&self) -> String {
        let (kind, subject) = match self {
            Self::Call(_) | Self::Calls(_) => ("service", self.subject()),
            Self::Told(_) => ("stream", self.subject()),
        };
        format!("      {{ {kind}: {{ account: {ACCOUNT}, subject: \"{subject}\" }} }}\n")
    }
}

/// Working a partition's lists off, by consumers that the set-up key made.
fn work(partition: u16) -> Vec<String> {
    let of = |list: List| {
        let queue = format!("{}.{}", list.stream(partition), list.consumer(partition));
        let calls = ["MSG.NEXT", "UNPIN"].map(|call| format!("$JS.API.CONSUMER.{call}.{queue}"));
        calls.into_iter().chain([format!("$JS.ACK.{queue}.>")])
    };
    List::ALL.into_iter().flat_map(of).collect()
}

/// Making and changing the streams of a log, and nothing else of it: no consumer, no event.
fn keeping_streams(partitions: u16) -> Vec<String> {
    let topology = Topology { partitions, old_orders: OldOrders::Archive, ..Topology::default() };
    let calls = topology.streams().into_iter().flat_map(|stream| {
        ["CREATE", "UPDATE", "INFO"].map(|call| format!("$JS.API.STREAM.{call}.{}", stream.name))
    });
    calls.chain(["$JS.API.INFO".to_owned()]).collect()
}

/// What the subjects begin with on which this user is answered, so that nobody listens to another's answers.
pub(crate) fn inbox(nkey: &str) -> String {
    format!("_INBOX.{nkey}")
}

/// The `accounts` part of a nats-server's configuration, for users with these public keys and a log of so many
/// partitions.
pub fn configuration(users: &[(User, String)], partitions: u16) -> String {
    let of = |account: Option<&str>| -> String {
        let here = users.iter().filter(|(user, _)| user.account() == account);
        here.map(|(user, nkey)| user.entry(nkey, partitions)).collect()
    };
    let mut exports: BTreeMap<String, (Import, Vec<&str>)> = BTreeMap::new();
    let mut others = Vec::new();
    for (user, _) in users {
        let Some(account) = user.account() else { continue };
        let imports = user.imports(partitions);
        let imported: String = imports.iter().map(Import::imported).collect();
        others.push(format!(
            "  {account} {{\n    users: [\n{}    ]\n    imports: [\n{imported}    ]\n  }}\n",
            of(Some(account))
        ));
        for import in imports {
            let to = exports.entry(import.subject().to_owned()).or_insert_with(|| (import, Vec::new()));
            to.1.push(account);
        }
    }
    let others = others.concat();
    let exports: String = exports.values().map(|(export, to)| export.exported(&to.join(", "))).collect();
    format!(
        "# Made by `twelve nats-accounts`; include it in the server's configuration. Only public keys are in here.\n\
         accounts {{\n  SYS {{}}\n  {ACCOUNT} {{\n    jetstream: enabled\n    users: [\n{}    ]\n    \
         exports: [\n{exports}    ]\n  }}\n{others}}}\n\
         system_account: SYS\n",
        of(None)
    )
}
