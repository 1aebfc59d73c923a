//! nginx with nchan, a publish-subscribe module: the server that measurements stand beside a node.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};

use crate::{Nginx, ports::free_port};

/// Where Debian puts the module.
const MODULE: &str = "/usr/lib/nginx/modules/ngx_nchan_module.so";
/// Descriptors of a worker beside those of its clients: listeners, channels between workers, logs.
const OTHER_FILES: usize = 100;

/// What nchan is to hold.
#[derive(Debug, Clone, Copy)]
pub struct NchanArgs {
    /// Processes that serve.
    pub workers: usize,
    /// Clients that may connect. Each worker could take all of them, since the system does not spread them evenly.
    pub clients: usize,
    /// Messages that its channel keeps: at least as many as may be under way at once, so that nothing is dropped.
    pub messages: usize,
}

/// A running nginx with one channel. It ends with its value, and with this process.
pub struct Nchan {
    nginx: Nginx,
    port: u16,
}

impl Nchan {
    /// Of its WebSocket subscribers, who get what is published after they came.
    pub const SUBSCRIBE: &str = "/subscribe";
    /// Of its WebSocket publishers.
    pub const PUBLISH: &str = "/publish";

    /// Starts it in a temporary folder, on a free port.
    ///
    /// # Errors
    /// nginx or the module is missing, or it does not start.
    pub fn start(args: NchanArgs) -> Result<Self> {
        ensure!(
            Path::new(MODULE).is_file(),
            "{MODULE} is not installed (Debian package libnginx-mod-nchan; cargo xtask bench installs it)"
        );
        let port = free_port();
        Ok(Self { nginx: Nginx::start_temporary(&config(args, port))?, port })
    }

    /// Its address.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Its first process and its workers.
    ///
    /// # Errors
    /// It has ended.
    pub fn processes(&self) -> Result<Vec<i32>> {
        self.nginx.processes()
    }

    /// Where it says what went wrong.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.nginx.log()
    }

    /// How many subscribers it counts.
    ///
    /// # Errors
    /// It doesn't answer, or not as it should.
    pub fn subscribers(&self) -> Result<u64> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.write_all(b"GET /status HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        parse_subscribers(&answer).with_context(|| format!("nchan's status holds no subscribers: {answer}"))
    }
}

fn parse_subscribers(status: &str) -> Option<u64> {
    status.lines().find_map(|line| line.strip_prefix("subscribers:"))?.trim().parse().ok()
}

/// Heartbeats, logs and compression are off, and each worker has a listener of its own: all of it in nchan's favour.
fn config(NchanArgs { workers, clients, messages }: NchanArgs, port: u16) -> String {
    let (publish, subscribe) = (Nchan::PUBLISH, Nchan::SUBSCRIBE);
    let http = format!(
        "access_log off;
nchan_shared_memory_size 256M;
server {{
    listen 127.0.0.1:{port} reuseport backlog=4096;
    location = {publish} {{
        nchan_publisher websocket;
        nchan_channel_id one;
        nchan_message_buffer_length {messages};
        nchan_message_timeout 10m;
    }}
    location = {subscribe} {{
        nchan_subscriber websocket;
        nchan_channel_id one;
        nchan_subscriber_first_message newest;
        nchan_subscriber_timeout 0;
        nchan_websocket_ping_interval 0;
    }}
    location = /status {{ nchan_stub_status; }}
}}"
    );
    // nginx closes connections that have yet to ask for something once less than a sixteenth of all it may have is free.
    let connections = clients * 5 / 4 + OTHER_FILES;
    let limits = format!("worker_rlimit_nofile {};", connections + OTHER_FILES);
    format!("load_module {MODULE};\n{limits}\n{}", Nginx::config(workers, connections, &http))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_subscribers_are_read_from_its_status() {
        let status =
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\ntotal published messages: 3\nsubscribers: 15000\n";
        assert_eq!(parse_subscribers(status), Some(15_000));
        assert_eq!(parse_subscribers("HTTP/1.1 404 Not Found\r\n\r\n"), None);
    }

    #[test]
    fn limits_hold_all_clients() {
        let text = config(NchanArgs { workers: 2, clients: 15_000, messages: 200 }, 11_111);
        for line in ["worker_processes 2;", "worker_connections 18850;", "worker_rlimit_nofile 18950;"] {
            assert!(text.contains(line), "{line} is missing in {text}");
        }
    }
}
