//! What must not end before the process does.
//!
//! A thread or task that everything depends on and that has panicked would leave a node that looks alive: sockets that get nothing, sends
//! that nobody answers, acks that nobody writes. So the process ends, its supervisor starts it anew, and clients come back.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    process::abort,
};

use tokio::task::JoinHandle;

/// Runs it; a panic ends the process.
pub fn run<T>(what: &'static str, run: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| end(what))
}

/// Spawns it on the current runtime; a panic ends the process.
pub fn spawn(what: &'static str, task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    let running = tokio::spawn(task);
    tokio::spawn(watch(what, running))
}

/// Waits for a task; if it has panicked, the process ends.
pub async fn watch(what: &'static str, running: JoinHandle<()>) {
    if running.await.is_err_and(|error| error.is_panic()) {
        end(what);
    }
}

fn end(what: &'static str) -> ! {
    tracing::error!(what, "this panicked; the process ends");
    abort()
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::process::ExitStatusExt as _,
        process::{Command, ExitStatus, Stdio},
    };

    use super::*;

    const CHILD: &str = "MARTLET_TEST_VITAL";

    /// Runs one test of this module in a process of its own, in which it does what it is not to survive.
    fn in_a_child(test: &str) -> ExitStatus {
        let mut command = Command::new(std::env::current_exe().expect("the test program"));
        command.args(["--exact", &format!("vital::tests::{test}")]).env(CHILD, "1");
        command.stdout(Stdio::null()).stderr(Stdio::null()).status().expect("it runs")
    }

    fn is_child() -> bool {
        std::env::var_os(CHILD).is_some()
    }

    #[test]
    fn a_thread_that_panics_takes_the_process_with_it() {
        if is_child() {
            run("a thread", || panic!("a bug"));
        } else {
            assert_eq!(run("a thread", || 7), 7);
            let ended = in_a_child("a_thread_that_panics_takes_the_process_with_it");
            assert_eq!(ended.signal(), Some(rustix::process::Signal::ABORT.as_raw()));
        }
    }

    #[tokio::test]
    async fn a_task_that_panics_takes_the_process_with_it() {
        if is_child() {
            spawn("a task", async { panic!("a bug") }).await.expect("never");
        } else {
            spawn("a task", async {}).await.expect("it ended well");
            let ended = in_a_child("a_task_that_panics_takes_the_process_with_it");
            assert_eq!(ended.signal(), Some(rustix::process::Signal::ABORT.as_raw()));
        }
    }
}
