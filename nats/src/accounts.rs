//! Who may do what on the nats-server: one account, a user with a key of its own for each kind of process, and what
//! each needs, by the very names that [`crate::subject`] gives. Nobody may delete from the log, and nobody but the
//! archivist purge it, where its streams allow that.

use crate::{archive, snapshots, subject};

/// A kind of process that connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum User {
    /// `command-svc`: appends events, sets deadlines, answers other contexts.
    Command,
    /// `query-api` and `projector`: read the log, keep snapshots of views, and write no event.
    Views,
    /// People and tools that make the log and look after it.
    Operator,
    /// `twelve archive`: appends the last event of orders that are over, and moves them out of the log.
    Archivist,
    /// People and tools that look at single events.
    Inspector,
}

impl User {
    pub const ALL: [Self; 5] = [Self::Command, Self::Views, Self::Operator, Self::Archivist, Self::Inspector];

    /// The user's name in file names.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::Views => "views",
            Self::Operator => "operator",
            Self::Archivist => "archivist",
            Self::Inspector => "inspector",
        }
    }

    fn publishes(self, log: &[String]) -> Vec<String> {
        let api = |calls: &[&str]| calls.iter().map(|call| format!("$JS.API.{call}")).collect::<Vec<_>>();
        let look =
            ["INFO", "STREAM.NAMES", "STREAM.LIST", "STREAM.INFO.*", "DIRECT.GET.>", "STREAM.MSG.GET.*"];
        let make = ["STREAM.CREATE.*", "STREAM.UPDATE.*"];
        let archived = format!("OBJ_{}", archive::BUCKET);
        let own: Vec<String> = match self {
            Self::Command => {
                let lists = [subject::DEADLINES_STREAM, subject::NOTICES_STREAM];
                let work = log.iter().map(String::as_str).chain(lists).flat_map(work);
                let write = ["orders.*.*", "deadlines.*.*", "notices.*.*", "flows.*.*", "twelve.*.decide"];
                let fetch = read(&archived).into_iter().chain(["$JS.FC.>".to_owned()]);
                api(&make).into_iter().chain(work).chain(write.map(str::to_owned)).chain(fetch).collect()
            }
            Self::Views => {
                let stream = format!("OBJ_{}", snapshots::BUCKET);
                let keep = ["STREAM.CREATE", "STREAM.UPDATE", "STREAM.PURGE"];
                let keep = keep.map(|call| format!("$JS.API.{call}.{stream}"));
                let chunks = [format!("$O.{}.>", snapshots::BUCKET), "$JS.FC.>".to_owned()];
                let read = log.iter().chain([&stream, &archived]).flat_map(|stream| read(stream));
                read.chain(keep).chain(chunks).collect()
            }
            Self::Operator => [api(&make), api(&["CONSUMER.>"]), vec!["$SRV.>".into()]].concat(),
            Self::Archivist => {
                let keep = ["CREATE", "UPDATE"].map(|call| format!("$JS.API.STREAM.{call}.{archived}"));
                let write = ["orders.*.*".into(), format!("$O.{}.>", archive::BUCKET), "$JS.FC.>".to_owned()];
                let remove = log.iter().map(|stream| format!("$JS.API.STREAM.PURGE.{stream}"));
                let read = log.iter().chain([&archived]).flat_map(|stream| read(stream));
                read.chain(keep).chain(write).chain(remove).collect()
            }
            Self::Inspector => Vec::new(),
        };
        [api(&look), own].concat()
    }

    /// What is refused although something above would allow it: a worklist that is deleted, or made anew with other
    /// settings, has every event handed out again.
    fn never_publishes(self, log: &[String]) -> Vec<String> {
        if self == Self::Command {
            return Vec::new();
        }
        let lists = log.iter().map(|stream| format!("{stream}.saga"));
        let lists =
            lists.chain([subject::DEADLINES_STREAM, subject::NOTICES_STREAM].map(|list| format!("{list}.*")));
        let calls = ["CREATE", "DURABLE.CREATE", "DELETE", "MSG.NEXT", "PAUSE", "UNPIN"];
        let of = |list: String| calls.map(|call| format!("$JS.API.CONSUMER.{call}.{list}"));
        lists
            .flat_map(|list| {
                of(list.clone()).into_iter().chain([format!("$JS.API.CONSUMER.CREATE.{list}.>")])
            })
            .collect()
    }

    /// The user as the server's configuration has it.
    fn entry(self, nkey: &str, log: &[String]) -> String {
        let list = |subjects: Vec<String>| {
            subjects.iter().map(|subject| format!("\"{subject}\"")).collect::<Vec<_>>().join(", ")
        };
        let (name, allow, deny) = (self.name(), list(self.publishes(log)), list(self.never_publishes(log)));
        let subscribe = list(self.subscribes(nkey));
        // Who answers requests may publish where it was asked to.
        let answers =
            if self == Self::Command { "\n        allow_responses: { max: 1, expires: \"1m\" }" } else { "" };
        format!(
            "      # {name}\n      {{ nkey: {nkey}, permissions: {{\n        publish: {{\n          \
             allow: [{allow}]\n          deny: [{deny}]\n        }}\n        \
             subscribe: {{ allow: [{subscribe}] }}{answers}\n      }} }}\n"
        )
    }

    fn subscribes(self, nkey: &str) -> Vec<String> {
        let own = format!("{}.>", inbox(nkey));
        match self {
            Self::Command => vec![own, "twelve.*.decide".into(), "$SRV.>".into()],
            Self::Views | Self::Operator | Self::Archivist | Self::Inspector => vec![own],
        }
    }
}

/// Reading a stream by a consumer that is forgotten afterwards.
fn read(stream: &str) -> Vec<String> {
    ["CREATE.{}", "CREATE.{}.>", "INFO.{}.*", "MSG.NEXT.{}.*", "DELETE.{}.*"]
        .map(|call| format!("$JS.API.CONSUMER.{}", call.replace("{}", stream)))
        .to_vec()
}

/// Working a stream off by a consumer that stays.
fn work(stream: &str) -> Vec<String> {
    let stays = ["DURABLE.CREATE.{}.*", "UNPIN.{}.*"];
    let stays = stays.map(|call| format!("$JS.API.CONSUMER.{}", call.replace("{}", stream)));
    read(stream).into_iter().chain(stays).chain([format!("$JS.ACK.{stream}.>")]).collect()
}

/// What the subjects begin with on which this user is answered, so that nobody listens to another's answers.
pub(crate) fn inbox(nkey: &str) -> String {
    format!("_INBOX.{nkey}")
}

/// The `accounts` part of a nats-server's configuration, for users with these public keys and a log of so many
/// partitions.
pub fn configuration(users: &[(User, String)], partitions: u16) -> String {
    let log: Vec<String> = (0..partitions).map(subject::stream).collect();
    let users: String = users.iter().map(|(user, nkey)| user.entry(nkey, &log)).collect();
    format!(
        "# Made by `twelve nats-accounts`; include it in the server's configuration. Only public keys are in here.\n\
         accounts {{\n  SYS {{}}\n  TWELVE {{\n    jetstream: enabled\n    users: [\n{users}    ]\n  }}\n}}\n\
         system_account: SYS\n"
    )
}
