//! Runs a document, as somebody would who pastes it block by block.

use std::time::{Duration, Instant};

use crate::{
    blocks::{self, Block, Step},
    expected::missing,
    shell::{Job, Ran, Shell},
};

/// The longest that one command may take, and that what it shows may take to come about.
const STEP_MAX: Duration = Duration::from_mins(1);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// What `twelve up`, and nats-server, say once they can be used.
const IS_UP: [&str; 2] = ["Twelve is up.", "Server is ready"];

/// What the command service and the view node say then, as processes of their own.
const IS_UP_APART: &str = "is up";

/// Programs that only look.
const LOOKS: [&str; 9] = [
    "grpcurl ",
    "sqlite3 ",
    "psql ",
    "nats sub ",
    "nats stream ls",
    "nats stream subjects",
    "nats consumer report",
    "nats object ls",
    "cargo twelve doctor",
];

/// How `curl --max-time` ends a stream that would go on.
const TIMED_OUT: i32 = 28;

/// What a command does to the terminal that it is typed in.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    /// The platform, or its log: it serves until it is stopped, and there is one at a time.
    Up,
    /// A part of it, which serves until it is stopped, beside others.
    Part,
    /// Prints until it is stopped: it has no place in a document.
    Follows,
    /// Ends, and changes nothing: it may be repeated until what it shows has come about.
    Looks,
    /// Ends, and is run once.
    Acts,
}

impl Kind {
    /// Whether its terminal takes no other command until it is stopped.
    fn goes_on(self) -> bool {
        matches!(self, Self::Up | Self::Part | Self::Follows)
    }
}

/// What goes on in a terminal of its own.
type Terminal = (Kind, Job);

pub(crate) fn document(document: &str) {
    let Some(mut shell) = Shell::start() else { return };
    let mut terminals: Vec<Terminal> = Vec::new();
    for block in blocks::of(document) {
        if block.language != "console" || block.not_run.is_some() {
            continue;
        }
        if let Err(why) = take(&mut shell, &mut terminals, &block) {
            panic!("{document}:{}: {why}\n{}", block.line, printed(&terminals));
        }
    }
    end(&mut shell, &mut terminals);
}

/// Pastes a block: into a terminal of its own if its last command goes on, else into the one for all others.
fn take(shell: &mut Shell, terminals: &mut Vec<Terminal>, block: &Block) -> Result<(), String> {
    let kinds: Vec<Kind> = block.steps.iter().map(|step| kind(&step.command)).collect();
    let (last, others) = kinds.split_last().ok_or("a block without commands")?;
    if *last == Kind::Follows || others.iter().any(|kind| kind.goes_on()) {
        return Err("a command that goes on is not the last of its block".to_owned());
    }
    if block.stops {
        if terminals.is_empty() {
            return Err("there is nothing for Ctrl-C to stop".to_owned());
        }
        end(shell, terminals);
    }
    all_go_on(shell, terminals)?;
    if last.goes_on() {
        if *last == Kind::Up && terminals.iter().any(|(kind, _)| *kind == Kind::Up) {
            return Err("something serves already, and the document does not say to stop it".to_owned());
        }
        let commands: Vec<&str> = block.steps.iter().map(|step| step.command.as_str()).collect();
        let job = shell.begin(&commands.join("\n"));
        let shown = until(|| {
            if shell.is_running(&job) {
                return has_come_up(&job, *last, block).map(Ok);
            }
            Ok(Err(format!("`{}` has ended; it printed:\n{}", job.command(), job.output())))
        });
        terminals.push((*last, job));
        shown??;
    } else {
        for (number, step) in block.steps.iter().enumerate() {
            let fails = block.fails && number + 1 == block.steps.len();
            run(shell, step, kinds[number], fails).map_err(|why| format!("$ {}\n{why}", step.command))?;
        }
    }
    all_go_on(shell, terminals)
}

/// What was to go on until it is stopped must not have ended.
fn all_go_on(shell: &mut Shell, terminals: &[Terminal]) -> Result<(), String> {
    match terminals.iter().find(|(_, job)| !shell.is_running(job)) {
        Some((_, ended)) => Err(format!("`{}` has ended", ended.command())),
        None => Ok(()),
    }
}

fn run(shell: &mut Shell, step: &Step, kind: Kind, fails: bool) -> Result<(), String> {
    if kind == Kind::Looks {
        until(|| judge(&shell.run(&step.command, STEP_MAX), step, fails))
    } else {
        judge(&shell.run(&step.command, STEP_MAX), step, fails)
    }
}

fn kind(command: &str) -> Kind {
    let begins = |with: &[&str]| with.iter().any(|with| command.starts_with(with));
    let has = |words: &[&str]| words.iter().any(|word| command.contains(word));
    let begins_twelve = |with: &str| {
        command
            .strip_prefix("cargo ")
            .unwrap_or(command)
            .strip_prefix("twelve ")
            .is_some_and(|rest| rest.starts_with(with))
    };
    if begins_twelve("up") || begins(&["nats-server "]) {
        Kind::Up
    } else if begins_twelve("command-svc ") || begins_twelve("query-api ") || begins(&["nginx "]) {
        Kind::Part
    } else if (begins(&["curl -N"]) && !has(&[" --max-time "])) || (begins(&["nats sub"]) && !has(&[" -T"])) {
        Kind::Follows
    } else if has(&[" -X ", " -d "]) && !has(&["/Get"]) {
        Kind::Acts
    } else if has(&["curl "]) || begins(&LOOKS) {
        Kind::Looks
    } else {
        Kind::Acts
    }
}

/// Whether what goes on says that it can be used, and has printed what its block shows.
fn has_come_up(job: &Job, kind: Kind, block: &Block) -> Result<(), String> {
    let output = job.output();
    let expected = block.steps.iter().flat_map(|step| &step.expected).cloned().collect::<Vec<_>>();
    let missing = missing(&expected, &output);
    // nginx says nothing.
    let is_up = match kind {
        Kind::Up => IS_UP.iter().any(|sign| output.contains(sign)),
        Kind::Part | Kind::Follows | Kind::Looks | Kind::Acts => {
            output.contains(IS_UP_APART) || job.command().contains("nginx ")
        }
    };
    if missing.is_empty() && is_up {
        return Ok(());
    }
    Err(format!("$ {}\nis not up, or does not show {missing:?}", job.command()))
}

fn judge(ran: &Ran, step: &Step, fails: bool) -> Result<(), String> {
    let Ran { status, output } = ran;
    let missing = missing(&step.expected, output);
    let is_cut = *status == TIMED_OUT && step.command.contains(" --max-time ");
    if (*status != 0 && !is_cut) != fails {
        return Err(format!("ended with {status}; it printed:\n{output}"));
    }
    if missing.is_empty() {
        Ok(())
    } else {
        Err(format!("does not print {missing:#?}; it printed:\n{output}"))
    }
}

/// Looks until it is so; the last reason why not, if that takes too long.
fn until<T>(mut is_so: impl FnMut() -> Result<T, String>) -> Result<T, String> {
    let began = Instant::now();
    loop {
        match is_so() {
            Ok(found) => return Ok(found),
            Err(why) if began.elapsed() > STEP_MAX => return Err(why),
            Err(_) => std::thread::sleep(LOOK_EVERY),
        }
    }
}

fn end(shell: &mut Shell, terminals: &mut Vec<Terminal>) {
    while let Some((_, job)) = terminals.pop() {
        shell.end(&job);
    }
}

fn printed(terminals: &[Terminal]) -> String {
    let said = terminals.iter().map(|(_, job)| format!("`{}` printed:\n{}", job.command(), job.output()));
    said.collect::<Vec<_>>().join("\n")
}

#[test]
fn a_terminal_in_which_something_goes_on_takes_no_other_command() {
    let up = ["cargo twelve up", "nats-server --config x"].map(kind);
    assert_eq!(up, [Kind::Up; 2]);
    let parts = ["cargo twelve command-svc --config x", "twelve query-api --views v", "nginx -c x"].map(kind);
    assert_eq!(parts, [Kind::Part; 3]);
    assert_eq!(["curl -N http://x", "nats sub 'orders.>'"].map(kind), [Kind::Follows; 2]);
    assert_eq!(["curl -N --max-time 3 http://x", "nats sub 'orders.>' --all -T"].map(kind), [Kind::Looks; 2]);
    assert_eq!(["cargo twelve projector rebuild", "curl -X POST http://x"].map(kind), [Kind::Acts; 2]);
    let Some(mut shell) = Shell::start() else { return };
    let mut taken = |text: &str| {
        let mut terminals = Vec::new();
        let blocks = blocks::parse(text, "T.md");
        let taken: Result<Vec<()>, String> =
            blocks.iter().map(|block| take(&mut shell, &mut terminals, block)).collect();
        end(&mut shell, &mut terminals);
        taken.err().unwrap_or_default()
    };
    assert!(taken("```console\n$ cargo twelve up\n$ true\n```\n").contains("not the last"));
    assert!(taken("```console\n$ curl -N http://x\n```\n").contains("not the last"));
    assert!(taken("Ctrl-C\n<!-- ctrl-c -->\n```console\n$ true\n```\n").contains("nothing for Ctrl-C"));
    // A variable of one terminal is none of another's.
    let two = "```console\n$ A=1; export B=2\n$ [ $A$B = 12 ]\n```\n\n\
               ```console\n$ function nginx { echo \"<$A$B>\"; exec sleep 60; }\n$ nginx -c x\n<>\n```\n";
    assert_eq!(taken(two), "");
    let ends = "```console\n$ function twelve { echo no; }\n$ twelve command-svc --config x\n```\n";
    assert!(taken(ends).contains("has ended"), "what was to go on has ended");
}
