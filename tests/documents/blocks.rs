//! The blocks of a document: their commands, what these are expected to print, and what is said about them.

use std::process::Command;

use pulldown_cmark::{CodeBlockKind, Event, Parser, Tag};
use twelve_tests::workspace;

/// A block of code, fenced or indented.
pub(crate) struct Block {
    /// The line of the document on which it begins.
    pub(crate) line: usize,
    pub(crate) language: String,
    pub(crate) body: String,
    pub(crate) steps: Vec<Step>,
    /// Why it cannot be run.
    pub(crate) not_run: Option<String>,
    /// Its last command ends with an error.
    pub(crate) fails: bool,
    /// What runs is stopped first, as by Ctrl-C.
    pub(crate) stops: bool,
}

/// A command, and lines of what it prints.
pub(crate) struct Step {
    pub(crate) command: String,
    pub(crate) expected: Vec<String>,
}

/// All blocks of code of a document of the workspace.
pub(crate) fn of(document: &str) -> Vec<Block> {
    let path = workspace().join(document);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{document}: {error}"));
    parse(&text, document)
}

pub(crate) fn parse(text: &str, document: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let (mut comments, mut open, mut body) = (String::new(), false, String::new());
    // What a reader sees since the block before.
    let mut words = String::new();
    for (event, range) in Parser::new(text).into_offset_iter() {
        if let Event::Html(html) = &event {
            comments.push_str(html);
        } else if let Event::Start(Tag::CodeBlock(kind)) = &event {
            let language = match kind {
                CodeBlockKind::Fenced(language) => language.to_string(),
                CodeBlockKind::Indented => String::new(),
            };
            let line = text[..range.start].matches('\n').count() + 1;
            let block = block(line, language, &std::mem::take(&mut comments), document);
            let says_so = std::mem::take(&mut words).contains("Ctrl-C");
            assert!(!block.stops || says_so, "{document}:{line}: no word of Ctrl-C for the reader");
            blocks.push(block);
            (open, body) = (true, String::new());
        } else if let (Event::Text(part), true) = (&event, open) {
            body.push_str(part);
        } else if let (Event::End(_), true, Some(block)) = (&event, open, blocks.last_mut()) {
            open = false;
            block.steps = steps(&body);
            block.body.clone_from(&body);
        } else if matches!(&event, Event::Start(tag) if *tag != Tag::HtmlBlock) {
            assert!(comments.is_empty(), "{document}: a mark is of the block right below it: {comments}");
        } else if let Event::Text(part) | Event::Code(part) = &event {
            words.push_str(part);
        }
    }
    assert!(comments.is_empty(), "{document}: a mark above nothing: {comments}");
    blocks
}

fn block(line: usize, language: String, comments: &str, document: &str) -> Block {
    let mut block = Block {
        line,
        language,
        body: String::new(),
        steps: vec![],
        not_run: None,
        fails: false,
        stops: false,
    };
    for mark in comments.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let mark = mark.strip_prefix("<!--").and_then(|mark| mark.strip_suffix("-->"));
        let mark =
            mark.unwrap_or_else(|| panic!("{document}:{line}: a comment of more than one line")).trim();
        match mark.split_once(':').map_or((mark, ""), |(name, value)| (name, value.trim())) {
            ("not run", reason) => block.not_run = Some(reason.to_owned()),
            ("fails", "") => block.fails = true,
            ("ctrl-c", "") => block.stops = true,
            _ => panic!("{document}:{line}: unknown mark {mark}"),
        }
    }
    block
}

/// A line that begins with `$ ` begins a command; bash says whether the lines below belong to it.
fn steps(body: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for line in body.lines() {
        match (line.strip_prefix("$ "), steps.last_mut()) {
            (None, None) => return Vec::new(),
            (None, Some(step)) if step.expected.is_empty() && !is_whole(&step.command) => {
                step.command.push('\n');
                step.command.push_str(line);
            }
            (None, Some(step)) => step.expected.push(line.to_owned()),
            (Some(command), _) => steps.push(Step { command: command.to_owned(), expected: vec![] }),
        }
    }
    steps
}

fn is_whole(command: &str) -> bool {
    let read = Command::new("bash").args(["-n", "-c", command]).env("LC_ALL", "C").output();
    let said = String::from_utf8_lossy(&read.expect("bash is here").stderr).into_owned();
    let is_open =
        ["unexpected EOF", "unexpected end of file", "here-document"].iter().any(|open| said.contains(open));
    !is_open && !command.ends_with('\\')
}

#[test]
fn a_block_is_commands_of_one_or_more_lines_and_what_they_print() {
    let text = "# T\n\n<!-- fails -->\n```console\n$ a 'b\nc'\nsaid\n$ cat <<END\nx\nEND\n$ d \\\n  e\n```\n";
    let blocks = parse(text, "T.md");
    let commands: Vec<&str> = blocks[0].steps.iter().map(|step| step.command.as_str()).collect();
    assert_eq!(commands, ["a 'b\nc'", "cat <<END\nx\nEND", "d \\\n  e"]);
    assert_eq!(blocks[0].steps[0].expected, ["said"]);
    assert_eq!((blocks[0].line, blocks[0].fails), (4, true));
}

#[test]
fn a_mark_that_is_not_known_or_is_above_no_block_or_says_what_the_reader_is_not_told_is_a_fault() {
    let block = "```console\n$ a\n```\n";
    let faulty = [
        format!("<!-- ctlr-c -->\n{block}"),
        format!("<!-- fails: never -->\n{block}"),
        format!("<!-- not run: there is none -->\n\nwords\n\n{block}"),
        format!("{block}\n<!-- fails -->\n"),
        format!("Stop it:\n\n<!-- ctrl-c -->\n{block}"),
    ];
    for text in faulty {
        assert!(std::panic::catch_unwind(|| parse(&text, "T.md")).is_err(), "{text}");
    }
    let stops = parse(&format!("Stop it (Ctrl-C):\n\n<!-- ctrl-c -->\n{block}"), "T.md");
    assert!(stops[0].stops);
}
