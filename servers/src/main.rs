//! `martlet-servers`: servers for tests that run by hand, kept running until Ctrl-C.
//!
//! It prints what to set so that tests use them instead of starting their own. Arguments name what to start: `postgres`, `redis`,
//! `nginx` (which serves nothing); without any, the first two.

use std::io::Write as _;

use anyhow::{Result, bail};
use martlet_servers::{Nginx, free_port, shared_postgres, shared_redis};

fn main() -> Result<()> {
    let mut wanted: Vec<String> = std::env::args().skip(1).collect();
    if wanted.is_empty() {
        wanted = vec!["postgres".into(), "redis".into()];
    }
    let mut kept = Vec::new();
    for server in &wanted {
        let (setting, pid) = match server.as_str() {
            "postgres" => {
                let postgres = shared_postgres()?;
                (format!("MARTLET_TEST_POSTGRES={}", postgres.port()), postgres.pid())
            }
            "redis" => {
                let redis = shared_redis()?;
                (format!("MARTLET_TEST_REDIS={}", redis.port()), redis.pid())
            }
            "nginx" => {
                let port = free_port();
                let http = format!("access_log off; server {{ listen 127.0.0.1:{port}; return 204; }}");
                let config = Nginx::config(1, 100, &http);
                let nginx = Nginx::start_temporary(&config)?;
                let pid = nginx.pid();
                kept.push(nginx);
                (format!("NGINX={port}"), pid)
            }
            other => bail!("there is no server {other}; known are postgres, redis and nginx"),
        };
        println!("{setting} # process {pid}");
    }
    std::io::stdout().flush()?;
    // Ctrl-C ends this process, and with it the servers.
    loop {
        std::thread::park();
    }
}
