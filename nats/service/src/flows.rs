//! The flows of a process: those that come with the program, and those of a folder of the user's own, which are checked
//! before they run.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use clap::Args;
use domain::{
    Flows,
    explore::{Exploration, explore},
    flow::Declared,
};

/// The most flow files of one folder.
const FILES_MAX: usize = 1_000;
/// The largest flow file, in bytes.
const FILE_BYTES_MAX: u64 = 64 * 1024;

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Flows")]
pub struct FlowSettings {
    /// A folder of flows of your own (*.toml, see domain/FLOWS.md); by its name one may take the place of a shipped one
    #[arg(long, env = "TWELVE_FLOWS", value_name = "DIR")]
    pub flows: Option<PathBuf>,
    /// Start although a flow of your own breaks a rule: its orders may lose money, goods or their end
    #[arg(long, env = "TWELVE_ALLOW_BROKEN_FLOWS")]
    pub allow_broken_flows: bool,
}

impl FlowSettings {
    /// Reads and checks the flows. The shipped ones are checked when the program is made.
    pub fn load(&self) -> anyhow::Result<Flows> {
        let mut flows = Flows::shipped()?;
        let Some(folder) = &self.flows else { return Ok(flows) };
        let (mut refused, mut loaded) = (Vec::new(), BTreeMap::<String, PathBuf>::new());
        for path in files(folder)? {
            let shown = path.display();
            match read(&path, &mut flows) {
                Ok(declared) => {
                    if let Some(first) = loaded.insert(declared.reference.name.clone(), path.clone()) {
                        let (name, first) = (&declared.reference.name, first.display());
                        anyhow::bail!(
                            "{first} and {shown} are both called {name:?}; give one of them another name"
                        );
                    }
                    let found = explore(&declared.flow, &declared.reference);
                    tracing::info!(
                        flow = declared.reference.name,
                        version = declared.reference.version,
                        "{shown} is loaded"
                    );
                    flows.draw(declared.reference.clone(), found.diagram().into());
                    refused.extend(broken(&found).map(|why| format!("{shown}: {why}")));
                }
                Err(error) => anyhow::bail!("{shown} is refused: {error:#}"),
            }
        }
        if refused.is_empty() {
            return Ok(flows);
        }
        let why = refused.join("\n");
        anyhow::ensure!(
            self.allow_broken_flows,
            "{why}\nnothing is started; --allow-broken-flows starts all the same"
        );
        tracing::error!("started although a flow breaks a rule, as --allow-broken-flows says: {why}");
        Ok(flows)
    }
}

fn files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder)
        .with_context(|| format!("cannot read the flows in {}", folder.display()))?;
    let paths = entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>()?;
    let mut files: Vec<PathBuf> = paths
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    anyhow::ensure!(files.len() <= FILES_MAX, "{} has more than {FILES_MAX} flow files", folder.display());
    files.sort();
    Ok(files)
}

/// Reads a flow file and adds it.
fn read(path: &Path, flows: &mut Flows) -> anyhow::Result<Declared> {
    let bytes = std::fs::metadata(path)?.len();
    anyhow::ensure!(bytes <= FILE_BYTES_MAX, "it has {bytes} bytes; a flow has at most {FILE_BYTES_MAX}");
    Ok(flows.add(&std::fs::read_to_string(path)?)?)
}

/// What a check found wrong, as lines for people.
pub fn broken(found: &Exploration) -> Option<String> {
    let violation = found.violation.as_ref()?;
    let moves: Vec<String> =
        (1..).zip(&violation.moves).map(|(n, made)| format!("  {n:>2}. {made}")).collect();
    Some(format!("broken rule: {}\n{}", violation.rule, moves.join("\n")))
}
