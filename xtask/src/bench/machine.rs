//! On what it ran: without these facts a figure says nothing.

use std::{fs, io::Write as _, path::Path, thread, time::Instant};

use anyhow::{Context as _, Result};

use super::json::median;

/// What is written and made durable at once.
const BLOCK_BYTES: usize = 4096;
const BLOCKS: usize = 200;

/// What can be told of a machine without naming it.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    cores: usize,
    memory_gib: f64,
    kernel: String,
    cpu: String,
    /// Median time until 4 KiB are on the disk, in milliseconds.
    fdatasync_ms: f64,
}

/// Of this machine, and of the disk that a folder is on.
///
/// # Errors
/// It does not tell (this is Linux's), or the folder can't be written to.
pub fn facts(folder: &Path) -> Result<Facts> {
    let read = |file: &str| fs::read_to_string(file).with_context(|| format!("can't read {file}"));
    let memory = read("/proc/meminfo")?;
    let cpu = read("/proc/cpuinfo")?;
    Ok(Facts {
        cores: thread::available_parallelism()?.get(),
        memory_gib: memory_gib(&memory).context("/proc/meminfo has no MemTotal")?,
        kernel: read("/proc/sys/kernel/osrelease")?.trim().to_owned(),
        cpu: cpu_model(&cpu).unwrap_or_else(|| "unknown".to_owned()),
        fdatasync_ms: fdatasync_ms(folder)?,
    })
}

impl Facts {
    /// For the document.
    #[must_use]
    pub fn markdown(&self) -> String {
        let Self { cores, memory_gib, kernel, cpu, fdatasync_ms } = self;
        format!(
            "| machine | |\n|---|---|\n| processor | {cpu}, {cores} cores |\n| memory | {memory_gib:.1} GiB |\n\
             | kernel | Linux {kernel} |\n| disk | `fdatasync` of 4 KiB takes {fdatasync_ms:.2} ms (median of {BLOCKS}, before the first measurement) |\n"
        )
    }
}

fn memory_gib(meminfo: &str) -> Option<f64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(line.trim().strip_suffix(" kB")?.trim().parse::<f64>().ok()? / f64::from(1 << 20))
}

fn cpu_model(cpuinfo: &str) -> Option<String> {
    let line = cpuinfo.lines().find_map(|line| line.strip_prefix("model name"))?;
    Some(line.trim_start().strip_prefix(':')?.trim().to_owned())
}

#[expect(clippy::disallowed_methods, reason = "the disk's time is what is measured")]
fn fdatasync_ms(folder: &Path) -> Result<f64> {
    let path = folder.join("fdatasync");
    let mut file = fs::File::create(&path).with_context(|| format!("can't write {}", path.display()))?;
    let mut times = Vec::new();
    for _ in 0..BLOCKS {
        file.write_all(&[0x5a; BLOCK_BYTES])?;
        let began = Instant::now();
        file.sync_data()?;
        times.push(began.elapsed().as_secs_f64() * 1000.0);
    }
    fs::remove_file(&path)?;
    median(times)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_told_in_a_table() {
        let facts = Facts {
            cores: 2,
            memory_gib: memory_gib("MemFree: 1 kB\nMemTotal:   25165824 kB\n").expect("there"),
            kernel: "6.1.0".into(),
            cpu: cpu_model("processor : 0\nmodel name\t: Some CPU\n").expect("there"),
            fdatasync_ms: 0.7,
        };
        assert_eq!(
            facts.markdown(),
            "| machine | |\n|---|---|\n| processor | Some CPU, 2 cores |\n| memory | 24.0 GiB |\n| kernel | Linux 6.1.0 |\n\
             | disk | `fdatasync` of 4 KiB takes 0.70 ms (median of 200, before the first measurement) |\n"
        );
    }

    #[test]
    fn this_machine_tells_them() {
        let folder = std::env::temp_dir();
        assert!(facts(&folder).expect("readable").fdatasync_ms >= 0.0);
    }
}
