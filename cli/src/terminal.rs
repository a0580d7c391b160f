//! Standard output and standard error of the tools. A reader that stops early (`| head`) is no failure.

use std::{
    io::{ErrorKind, Write},
    process::ExitCode,
    sync::OnceLock,
};

/// Why standard output takes no more; set once.
static CLOSED: OnceLock<std::io::Error> = OnceLock::new();

/// Takes the place of the standard library's macro in all of this crate: that one panics on a closed pipe.
macro_rules! println {
    () => {
        $crate::terminal::write("", "\n")
    };
    ($($arguments:tt)+) => {
        $crate::terminal::write(&format!($($arguments)+), "\n")
    };
}

/// As [`println!`], without the end of the line.
macro_rules! print {
    ($($arguments:tt)+) => {
        $crate::terminal::write(&format!($($arguments)+), "")
    };
}

/// Writes to standard output. Once that has failed, nothing more is written, and the work goes on to its end, so that
/// what it started is stopped.
pub(crate) fn write(text: &str, end: &str) {
    if is_closed() {
        return;
    }
    let mut out = std::io::stdout().lock();
    let written = out
        .write_all(text.as_bytes())
        .and_then(|()| out.write_all(end.as_bytes()))
        .and_then(|()| out.flush());
    if let Err(error) = written {
        drop(CLOSED.set(error));
    }
}

/// Whether standard output is closed; a command that prints without end ends then.
pub(crate) fn is_closed() -> bool {
    CLOSED.get().is_some()
}

/// Ends a command: its error goes to standard error with all causes, and without a stack trace, which is of no use to
/// the person who typed the command.
pub(crate) fn exit_code(result: anyhow::Result<()>) -> ExitCode {
    match (result, CLOSED.get()) {
        (Err(error), _) => {
            write_error(&error);
            ExitCode::FAILURE
        }
        (Ok(()), Some(error)) if error.kind() != ErrorKind::BrokenPipe => {
            write_error(&anyhow::anyhow!("cannot write to standard output: {error}"));
            ExitCode::FAILURE
        }
        (Ok(()), _) => ExitCode::SUCCESS,
    }
}

fn write_error(error: &anyhow::Error) {
    let causes = error.chain().skip(1).map(|cause| format!("  caused by: {cause}\n"));
    let text = format!("error: {error}\n{}", causes.collect::<String>());
    // Standard error may be closed, too; there is nowhere left to say so.
    drop(std::io::stderr().lock().write_all(text.as_bytes()));
}
