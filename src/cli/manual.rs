//! `postrider man` and `completions`: what a package puts beside the binary, made from the commands themselves so that it cannot
//! differ from them.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Command};
use clap_complete::Shell;

use super::{Answer, output};

#[derive(Args)]
pub(super) struct Man {
    /// An existing folder; one page a command is written to it
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
}

impl Man {
    pub(super) fn run(self, command: Command) -> Answer {
        clap_mangen::generate_to(command, &self.folder).with_context(|| {
            format!(
                "cannot write manual pages to {}; it must be a folder that may be written",
                self.folder.display()
            )
        })
    }
}

#[derive(Args)]
pub(super) struct Completions {
    /// The shell to complete in
    shell: Shell,
}

impl Completions {
    pub(super) fn run(self, command: &mut Command) -> Answer {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, command, "postrider", &mut script);
        output::print(&String::from_utf8_lossy(&script))
    }
}
