//! `twelve completions`: what a shell completes after `twelve`, from the commands and settings themselves.

use clap::{Args, Command};
use clap_complete::Shell;

#[derive(Args, Clone, Copy, Debug)]
#[command(after_help = "Load them once for each shell:\n  \
    bash    twelve completions bash > ~/.local/share/bash-completion/completions/twelve\n  \
    zsh     twelve completions zsh > ~/.zfunc/_twelve        (a folder of fpath)\n  \
    fish    twelve completions fish > ~/.config/fish/completions/twelve.fish")]
pub(crate) struct Settings {
    /// The shell that is to complete
    shell: Shell,
}

pub(crate) fn run(settings: Settings, mut command: Command) {
    let mut script = Vec::new();
    clap_complete::generate(settings.shell, &mut command, "twelve", &mut script);
    print!("{}", String::from_utf8_lossy(&script));
}
