//! What `report` takes.

use std::path::PathBuf;

use clap::Args;

/// Arguments of `report`.
#[derive(Debug, Clone, Args)]
pub struct ReportArgs {
    /// Results, as `--json` wrote them. Those of one measurement are laid over each other, each under its file's name.
    #[arg(value_name = "RESULT.json", required = true)]
    pub results: Vec<PathBuf>,
    /// The page to write: one HTML file that needs nothing else.
    #[arg(long, value_name = "FILE", default_value = "report.html")]
    pub out: PathBuf,
}
