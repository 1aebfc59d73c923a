//! One test: its temporary folder, its seed, its deadline, and what its processes logged, shown if it fails.

use std::{
    future::Future,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use parking_lot::Mutex;
use rand::{SeedableRng as _, rngs::StdRng};

use crate::clock;

/// After this a test has hung. Far above what any takes.
const DEADLINE: Duration = Duration::from_secs(900);
/// For one condition.
const PATIENCE: Duration = Duration::from_secs(180);
/// Of each process's log when a test fails.
const LOG_LINES_SHOWN: usize = 60;

/// What a test and its processes share. Clones are the same scene.
#[derive(Clone)]
pub struct Scene(Arc<Inner>);

struct Inner {
    folder: PathBuf,
    /// Removes the folder; none if that is not this scene's matter.
    _temporary: Option<tempfile::TempDir>,
    seed: u64,
    logs: Mutex<Vec<PathBuf>>,
}

impl Scene {
    /// An empty scene. The seed comes from MARTLET_E2E_SEED, or differs from run to run.
    ///
    /// # Errors
    /// No temporary folder, or a seed that is not a number.
    pub fn new(test: &str) -> Result<Self> {
        let seed = match std::env::var("MARTLET_E2E_SEED") {
            Ok(text) => text.parse().context("MARTLET_E2E_SEED is not a number")?,
            Err(_) => clock::changing(),
        };
        let temporary = tempfile::Builder::new().prefix(&format!("martlet-{test}-")).tempdir()?;
        println!("{test}: MARTLET_E2E_SEED={seed}");
        let folder = temporary.path().to_owned();
        Ok(Self(Arc::new(Inner { folder, _temporary: Some(temporary), seed, logs: Mutex::default() })))
    }

    /// A scene in a folder that stays.
    #[must_use]
    pub fn lasting(folder: &Path, seed: u64) -> Self {
        Self(Arc::new(Inner { folder: folder.to_owned(), _temporary: None, seed, logs: Mutex::default() }))
    }

    /// The scene's temporary folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.0.folder
    }

    /// Randomness for one part of the test; the same seed and part give the same numbers.
    #[must_use]
    pub fn rng(&self, part: u64) -> StdRng {
        StdRng::seed_from_u64(self.0.seed ^ part.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// A log file to be shown if the test fails.
    #[must_use]
    pub fn log_file(&self, name: &str) -> PathBuf {
        let mut logs = self.0.logs.lock();
        let path = self.folder().join(format!("{name}-{}.log", logs.len()));
        logs.push(path.clone());
        path
    }

    fn show_logs(&self) {
        for path in self.0.logs.lock().iter() {
            let text = String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned();
            let lines: Vec<_> = text.lines().collect();
            let from = lines.len().saturating_sub(LOG_LINES_SHOWN);
            println!("---- {} (last {} of {} lines)", path.display(), lines.len() - from, lines.len());
            lines[from..].iter().for_each(|line| println!("{line}"));
        }
    }
}

/// Runs a test in a scene of its own; on failure shows seed and logs.
///
/// # Panics
/// If the test fails or hangs.
pub fn run<F: Future<Output = Result<()>>>(test: &str, body: impl FnOnce(Scene) -> F) {
    let scene = Scene::new(test).expect("a scene can be set");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime can be built");
    let future = body(scene.clone());
    let outcome = runtime.block_on(async {
        match tokio::time::timeout(DEADLINE, future).await {
            Ok(outcome) => outcome,
            Err(_) => bail!("the test did not end within {DEADLINE:?}"),
        }
    });
    // Ends tasks that hold nodes before the folder goes.
    runtime.shutdown_timeout(Duration::from_secs(5));
    if let Err(error) = outcome {
        scene.show_logs();
        panic!("{test} (MARTLET_E2E_SEED={}): {error:?}", scene.0.seed);
    }
}

/// Asks again and again until the condition holds.
///
/// # Errors
/// Its own error, or what was waited for if that takes too long.
pub async fn until<F: Future<Output = Result<bool>>>(what: &str, mut condition: impl FnMut() -> F) -> Result<()> {
    let watch = clock::Stopwatch::start();
    while !condition().await? {
        if watch.elapsed() > PATIENCE {
            bail!("waited {PATIENCE:?} for this: {what}");
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}
