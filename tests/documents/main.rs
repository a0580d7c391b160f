//! Documents are run: every `console` block as it stands, in order, in real shells on a fresh data folder.
//!
//! A block whose last command goes on until it is stopped has a terminal of its own, without any variable of another;
//! all other blocks are pasted into one and the same. What goes on must still do so after each block.
//!
//! A block is commands (`$ …`) and, below each, what it is expected to print: each of those lines must be in the
//! output, times and sizes masked, `…` standing for anything. What is no part of that is said in a comment above it:
//!
//! - `<!-- not run: REASON -->`: it cannot be run here;
//! - `<!-- fails -->`: its last command ends with an error, as the document says;
//! - `<!-- ctrl-c -->`: what goes on in terminals of its own is stopped first; the text above the block says so.
//!
//! Any other mark, and one that is above no block, is a fault.

mod blocks;
mod expected;
mod run;
mod shell;

use std::{collections::BTreeSet, process::Command};

use twelve_tests::workspace;

/// The documents with blocks that are run; each has a test.
const RUN: [&str; 7] = [
    "README.md",
    "nats/README.md",
    "domain/FLOWS.md",
    "docs/backup.md",
    "docs/install-kubernetes.md",
    "docs/upgrade.md",
    "docs/runbooks.md",
];
/// Where commands are shown that take hours, or machines or services of their own; each of their blocks says so.
const NOT_RUN: [&str; 4] =
    ["BENCHMARKS.md", "docs/payment-provider.md", "tests/SCENARIOS.md", "tests/bench/README.md"];
/// How a fence may say that it holds commands.
const COMMANDS: [&str; 5] = ["console", "sh", "bash", "shell", "zsh"];

#[test]
fn the_readme_can_be_pasted_from_its_first_block_to_its_last() {
    run::document("README.md");
}

#[test]
fn the_commands_that_look_at_the_log_show_what_their_page_says() {
    run::document("nats/README.md");
}

#[test]
fn a_platform_is_backed_up_lost_and_restored_as_its_page_says() {
    run::document("docs/backup.md");
}

#[test]
fn the_page_of_the_installation_makes_the_keys_that_the_manifests_ask_for() {
    run::document("docs/install-kubernetes.md");
}

#[test]
fn the_page_of_upgrades_looks_before_and_after() {
    run::document("docs/upgrade.md");
}

#[test]
fn what_the_runbooks_say_to_do_can_be_done() {
    run::document("docs/runbooks.md");
}

#[test]
fn the_page_of_the_flow_language_checks_a_flow_that_is_broken() {
    run::document("domain/FLOWS.md");
}

#[test]
fn no_block_of_commands_escapes_and_each_that_is_not_run_says_why() {
    let listed = Command::new("git").args(["ls-files", "*.md"]).current_dir(workspace()).output();
    let listed = String::from_utf8(listed.expect("git runs").stdout).expect("names are text");
    let (mut with_blocks, mut run_count) = (BTreeSet::new(), 0);
    for document in listed.lines() {
        for block in blocks::of(document) {
            let is_prompt = |line: &str| line.trim_start().starts_with("$ ");
            if !COMMANDS.contains(&&*block.language) {
                let line = block.line;
                assert!(
                    !block.body.lines().any(is_prompt),
                    "{document}:{line}: commands, but no `console` block"
                );
                continue;
            }
            assert_eq!(
                block.language, "console",
                "{document}:{}: the one kind of block that is run",
                block.line
            );
            assert!(!block.steps.is_empty(), "{document}:{}: commands begin with `$ `", block.line);
            with_blocks.insert(document.to_owned());
            if let Some(reason) = &block.not_run {
                assert!(reason.len() > 10, "{document}:{}: no reason: {reason}", block.line);
            } else {
                run_count += 1;
                assert!(RUN.contains(&document), "{document}:{} is run by no test", block.line);
            }
        }
    }
    let known: BTreeSet<String> = RUN.iter().chain(&NOT_RUN).map(ToString::to_string).collect();
    assert_eq!(with_blocks, known, "the documents with blocks of commands, and those that this test knows");
    assert!(run_count >= RUN.len(), "{run_count} blocks are run");
}
