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

/// What a command does to the terminal that it is typed in.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// The platform, or its log: it serves until it is stopped, and the next one takes its place.
    Up,
    /// A part of it, which serves until it is stopped, beside others.
    Part,
    /// Prints until it is stopped.
    Follows,
    /// Ends, and changes nothing: it may be repeated until what it shows has come about.
    Looks,
    /// Ends, and is run once.
    Acts,
}

pub(crate) fn document(document: &str) {
    let Some(mut shell) = Shell::start() else { return };
    let mut jobs: Vec<Job> = Vec::new();
    for block in blocks::of(document) {
        if block.language != "console" || block.not_run.is_some() {
            continue;
        }
        if block.stops {
            end(&mut shell, &mut jobs);
        }
        for (number, step) in block.steps.iter().enumerate() {
            let fails = block.fails && number + 1 == block.steps.len();
            if let Err(why) = take(&mut shell, &mut jobs, step, fails) {
                let Block { line, .. } = block;
                panic!("{document}:{line}: $ {}\n{why}\n{}", step.command, running(&jobs));
            }
        }
    }
    end(&mut shell, &mut jobs);
}

fn take(shell: &mut Shell, jobs: &mut Vec<Job>, step: &Step, fails: bool) -> Result<(), String> {
    match kind(&step.command) {
        Kind::Up => {
            end(shell, jobs);
            let job = shell.begin(&step.command);
            let shown = until(|| has_shown(&job, step, &IS_UP));
            jobs.push(job);
            shown
        }
        Kind::Part => {
            jobs.push(shell.begin(&step.command));
            Ok(())
        }
        Kind::Follows => {
            let job = shell.begin(&step.command);
            let shown = until(|| has_shown(&job, step, &[""]));
            shell.end(&job);
            shown
        }
        Kind::Looks => until(|| judge(&shell.run(&step.command, STEP_MAX), step, fails)),
        Kind::Acts => judge(&shell.run(&step.command, STEP_MAX), step, fails),
    }
}

fn kind(command: &str) -> Kind {
    let begins = |with: &[&str]| with.iter().any(|with| command.starts_with(with));
    let has = |words: &[&str]| words.iter().any(|word| command.contains(word));
    if begins(&["cargo twelve up", "twelve up", "nats-server "]) {
        Kind::Up
    } else if begins(&["command-svc ", "query-api ", "nginx "]) {
        Kind::Part
    } else if begins(&["curl -N"]) || (begins(&["nats sub"]) && !has(&[" -T"])) {
        Kind::Follows
    } else if has(&[" -X ", " -d "]) && !has(&["/Get"]) {
        Kind::Acts
    } else if has(&["curl "]) || begins(&LOOKS) {
        Kind::Looks
    } else {
        Kind::Acts
    }
}

/// Whether a command that goes on has printed what its document shows, and one of `signs`.
fn has_shown(job: &Job, step: &Step, signs: &[&str]) -> Result<(), String> {
    let output = job.output();
    let missing = missing(&step.expected, &output);
    if missing.is_empty() && !output.is_empty() && signs.iter().any(|sign| output.contains(sign)) {
        return Ok(());
    }
    Err(format!("does not show {missing:?}; it printed:\n{output}"))
}

fn judge(ran: &Ran, step: &Step, fails: bool) -> Result<(), String> {
    let Ran { status, output } = ran;
    let missing = missing(&step.expected, output);
    if (*status != 0) != fails {
        return Err(format!("ended with {status}; it printed:\n{output}"));
    }
    if missing.is_empty() {
        Ok(())
    } else {
        Err(format!("does not print {missing:#?}; it printed:\n{output}"))
    }
}

/// Looks until it is so; the last reason why not, if that takes too long.
fn until(mut is_so: impl FnMut() -> Result<(), String>) -> Result<(), String> {
    let began = Instant::now();
    loop {
        match is_so() {
            Ok(()) => return Ok(()),
            Err(why) if began.elapsed() > STEP_MAX => return Err(why),
            Err(_) => std::thread::sleep(LOOK_EVERY),
        }
    }
}

fn end(shell: &mut Shell, jobs: &mut Vec<Job>) {
    while let Some(job) = jobs.pop() {
        shell.end(&job);
    }
}

fn running(jobs: &[Job]) -> String {
    let said = jobs.iter().map(|job| format!("meanwhile `{}` printed:\n{}", job.command(), job.output()));
    said.collect::<Vec<_>>().join("\n")
}
