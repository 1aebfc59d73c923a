//! What the system knows of a process: memory, processor time, open files. Linux only (`/proc`).

use std::{fs, time::Duration};

use anyhow::{Context as _, Result, anyhow};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Memory of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Memory {
    /// Resident now.
    pub resident_bytes: u64,
    /// The most that was ever resident.
    pub peak_bytes: u64,
}

/// Resident memory of a process.
///
/// # Errors
/// When the process is gone, or this is not Linux.
pub fn memory(pid: u32) -> Result<Memory> {
    let status = read(pid, "status")?;
    parse_memory(&status).ok_or_else(|| anyhow!("/proc/{pid}/status has no VmRSS"))
}

fn parse_memory(status: &str) -> Option<Memory> {
    Some(Memory { resident_bytes: parse_kib(status, "VmRSS")?, peak_bytes: parse_kib(status, "VmHWM")? })
}

/// A line like `VmRSS:   10240 kB`, in bytes.
fn parse_kib(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// Resident memory of a process in bytes, in which a page that n processes share counts as its n-th part: the sum over processes that
/// share memory counts each page once.
///
/// # Errors
/// When the process is gone or somebody else's, or this is not Linux.
pub fn share_of_memory(pid: u32) -> Result<u64> {
    let rollup = read(pid, "smaps_rollup")?;
    parse_kib(&rollup, "Pss").ok_or_else(|| anyhow!("/proc/{pid}/smaps_rollup has no Pss"))
}

/// Processor time that a process has used so far, all threads together, in user and kernel mode.
///
/// # Errors
/// When the process is gone, or this is not Linux.
pub fn cpu(pid: u32) -> Result<Duration> {
    let stat = read(pid, "stat")?;
    let ticks = parse_cpu_ticks(&stat).ok_or_else(|| anyhow!("/proc/{pid}/stat can't be read"))?;
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    Ok(Duration::from_millis(ticks * 1000 / per_second))
}

/// As [`cpu`], with the processes that this one has started: those that run, and those that have ended.
///
/// # Errors
/// When the process is gone, or this is not Linux.
pub fn cpu_with_children(pid: u32) -> Result<Duration> {
    let mut ticks = 0;
    for entry in fs::read_dir("/proc").context("/proc")?.flatten() {
        let Some(other) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // One that has just ended counts with its parent.
        let Ok(stat) = read(other, "stat") else { continue };
        if other == pid {
            ticks +=
                parse_cpu_ticks(&stat).unwrap_or(0) + field(&stat, 13).unwrap_or(0) + field(&stat, 14).unwrap_or(0);
        } else if field(&stat, 1) == Some(u64::from(pid)) {
            ticks += parse_cpu_ticks(&stat).unwrap_or(0);
        }
    }
    Ok(Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second().max(1)))
}

/// A number of `/proc/PID/stat`, counted from the state, which is 0.
fn field(stat: &str, number: usize) -> Option<u64> {
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(number)?.parse().ok()
}

fn parse_cpu_ticks(stat: &str) -> Option<u64> {
    // The name in the second field may hold spaces and parentheses, so fields are counted after its last parenthesis.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let kernel: u64 = fields.next()?.parse().ok()?;
    Some(user + kernel)
}

fn read(pid: u32, file: &str) -> Result<String> {
    let path = format!("/proc/{pid}/{file}");
    fs::read_to_string(&path).with_context(|| format!("the process can't be observed ({path})"))
}

/// Raises the number of files that this process and those it starts may open to the most allowed, and tells that number.
///
/// # Errors
/// When the system refuses.
pub fn raise_open_files() -> Result<u64> {
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(u64::MAX);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    setrlimit(Resource::Nofile, raised).context("the limit of open files can't be raised (ulimit -n)")?;
    Ok(most)
}

/// How many files a process may open.
///
/// # Errors
/// When the process is gone, or this is not Linux.
pub fn open_files_limit(pid: u32) -> Result<u64> {
    let limits = read(pid, "limits")?;
    let line = limits.lines().find(|line| line.starts_with("Max open files"));
    let soft =
        line.and_then(|line| line.split_ascii_whitespace().nth(3)).ok_or_else(|| anyhow!("no open-file limit"))?;
    Ok(soft.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_in_bytes() {
        let status = "Name:\tmartlet\nVmHWM:\t   20480 kB\nVmRSS:\t   10240 kB\nThreads:\t9\n";
        let expected = Memory { resident_bytes: 10_485_760, peak_bytes: 20_971_520 };
        assert_eq!(parse_memory(status), Some(expected));
        assert_eq!(parse_memory("Name:\tzombie\n"), None);
    }

    #[test]
    fn processor_time_is_found_behind_odd_names() {
        let stat = "7 (a ) (b) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 9 0 100 1 2 3";
        assert_eq!(parse_cpu_ticks(stat), Some(300));
        assert_eq!(parse_cpu_ticks("7 (short) S 1"), None);
        assert_eq!(field(stat, 1), Some(1), "the parent");
    }

    #[test]
    fn this_process_can_be_observed() {
        let pid = std::process::id();
        assert!(memory(pid).expect("readable").resident_bytes > 0);
        assert!(share_of_memory(pid).expect("readable") > 0);
        assert!(cpu(pid).is_ok());
        assert!(open_files_limit(pid).expect("readable") > 0);
    }
}
