//! `rhn`: parse the command line, run the command, turn its outcome into an exit code.

use clap::Parser;
use rhn::command::{Cli, answer_shell};
use rhn::error::Error;
use std::io::{ErrorKind, Write};
use std::process::ExitCode;
use std::time::Duration;

/// What a shell reports for a process that wrote into a closed pipe.
const CLOSED_PIPE: u8 = 141;

fn main() -> ExitCode {
    answer_shell();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(answer) => return say(&answer),
    };
    match cli.run().and_then(|code| Ok(std::io::stdout().flush().map(|()| code)?)) {
        Ok(code) => ExitCode::from(code),
        Err(error) => fail(&error),
    }
}

/// Prints what the command line is answered with before any command runs: a help text or version that was asked for, on the
/// standard output, or what is wrong with it.
fn say(answer: &clap::Error) -> ExitCode {
    let code = u8::try_from(answer.exit_code()).unwrap_or(1);
    match answer.print().and_then(|()| std::io::stdout().flush()) {
        Err(error) if !answer.use_stderr() => fail(&error.into()),
        _ => ExitCode::from(code),
    }
}

/// Reports what ended the program.
fn fail(error: &anyhow::Error) -> ExitCode {
    if is_closed_pipe(error) {
        return ExitCode::from(CLOSED_PIPE); // `rhn … | head` ends quietly
    }
    if Error::is_said_by_another_rank(error) {
        // The first process that ends takes the others with it: it is not to be one that has nothing to say.
        std::thread::sleep(Duration::from_secs(1));
        return ExitCode::from(Error::exit_code_of(error));
    }
    // In one piece, whole or not at all; where it fails, nowhere is left to report to.
    let _ = std::io::stderr().write_all(format!("error: {}\n", chain(error)).as_bytes());
    ExitCode::from(Error::exit_code_of(error))
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let broken = |io: &std::io::Error| io.kind() == ErrorKind::BrokenPipe;
    error.chain().any(|cause| cause.downcast_ref().is_some_and(broken))
}

/// The messages from the outermost to the cause; one that already ends with its cause is not followed by it.
fn chain(error: &anyhow::Error) -> String {
    // What concerns a file names it; what is left is a result that could not be printed.
    let bare = error.downcast_ref::<std::io::Error>().map_or("", |_| "standard output: ");
    error.chain().fold(String::new(), |line, cause| {
        let cause = cause.to_string();
        match line.is_empty() {
            true => format!("{bare}{cause}"),
            false if line.ends_with(&cause) => line,
            false => format!("{line}: {cause}"),
        }
    })
}
