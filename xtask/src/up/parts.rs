//! The parts of a local cluster, each started until it serves: PostgreSQL, Redis, a node, nginx.

use std::{
    ffi::OsString,
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use martlet_servers::{Nginx, Postgres, Program, Redis, free_port, last_lines};

/// The nodes' database.
const DATABASE: &str = "martlet";
/// Where clients expect a node, and so nginx is, unless something else is there.
const USUAL_PORT: u16 = 8080;
/// How long a node may take to be ready: its migrations, on a slow disk.
const PATIENCE_S: u32 = 120;
const POLL: Duration = Duration::from_millis(100);
/// Lines of its log that a failing part is named with.
const LOG_LINES: usize = 20;

/// A node that was started.
pub struct Node {
    /// Such as `node-1`.
    pub name: &'static str,
    /// Where nginx finds it.
    pub public: SocketAddr,
    /// Where the operator finds it.
    pub internal: SocketAddr,
    /// Its process.
    pub program: Program,
}

/// PostgreSQL with the nodes' database, which a former run may have left.
pub fn postgres(folder: &Path) -> Result<Postgres> {
    let postgres = Postgres::start(&folder.join("postgresql"))?;
    let there = postgres.query("postgres", &format!("SELECT 1 FROM pg_database WHERE datname = '{DATABASE}'"))?;
    if there.is_empty() {
        postgres.create_database(DATABASE)?;
    }
    Ok(postgres)
}

impl Node {
    /// Starts one; [`Self::wait_until_ready`] says how that went.
    pub fn start(
        name: &'static str,
        program: &Path,
        folder: &Path,
        (postgres, redis): (&Postgres, &Redis),
        serve: &[String],
    ) -> Result<Self> {
        let listener = || SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let (public, internal) = (listener(), listener());
        let mut arguments: Vec<OsString> = vec!["serve".into()];
        for setting in [
            format!("server.listen={public}"),
            format!("server.internal_listen={internal}"),
            format!("storage.data_dir={}", folder.join(name).display()),
            format!("storage.secret_file={}", folder.join("node.secret").display()),
            format!("storage.database_url={}", postgres.url(DATABASE)),
            format!("cluster.node_id={name}"),
            format!("relay.redis_url={}", redis.url()),
            // nginx stands before it, on the same machine.
            "limits.trust_forwarded_for=true".to_owned(),
        ] {
            arguments.extend(["--set".into(), setting.into()]);
        }
        arguments.extend(serve.iter().map(OsString::from));
        let log = folder.join(format!("{name}.log"));
        let program = Program::start(name, program, arguments, &folder.join(name), &log)?;
        Ok(Self { name, public, internal, program })
    }

    /// Asks `GET /ready` until the node says yes.
    pub async fn wait_until_ready(&mut self) -> Result<()> {
        for _ in 0..PATIENCE_S * 1000 / POLL.as_millis() as u32 {
            if let Some(status) = self.program.status()? {
                bail!("{} ended at its start ({status}); the end of its log:\n{}", self.name, self.log_end());
            }
            if is_ready(self.public) {
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
        bail!("{} is not ready after {PATIENCE_S} s; the end of its log:\n{}", self.name, self.log_end());
    }

    /// The last lines of its log.
    pub fn log_end(&self) -> String {
        last_lines(self.program.log(), LOG_LINES)
    }
}

/// Whether the node, or nginx with a node behind it, takes clients.
pub fn is_ready(address: SocketAddr) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"GET /ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut head = [0; 12];
        stream.read_exact(&mut head)?;
        Ok(String::from_utf8_lossy(&head).into_owned())
    };
    ask().is_ok_and(|head| head.starts_with("HTTP/1.1 2"))
}

/// nginx with the files of `nginx/`, and where it listens. Without TLS: who tries it out has no certificate that a client would trust.
pub fn nginx(folder: &Path, nodes: &[Node]) -> Result<(Nginx, SocketAddr)> {
    let (folder, shipped) = (folder.join("nginx"), crate::root().join("nginx"));
    let own = folder.join("martlet");
    fs::create_dir_all(&own)?;
    fs::copy(shipped.join("martlet.conf"), own.join("martlet.conf")).context("nginx/martlet.conf is missing")?;
    let usual = SocketAddr::from((Ipv4Addr::LOCALHOST, USUAL_PORT));
    let address = match TcpListener::bind(usual) {
        Ok(_) => usual,
        Err(_) => SocketAddr::from((Ipv4Addr::LOCALHOST, free_port())),
    };
    let logs = folder.display();
    let site = format!(
        "listen {address};\naccess_log {logs}/martlet-access.log martlet;\nerror_log {logs}/martlet-error.log crit;\n"
    );
    fs::write(own.join("site.conf"), site)?;
    let mut list = fs::read_to_string(shipped.join("nodes-fixed.conf"))?;
    for (number, node) in nodes.iter().enumerate() {
        let example = format!("10.0.0.{}:8080", 11 + number);
        ensure!(list.contains(&example), "nginx/nodes-fixed.conf has no {example} any more");
        list = list.replace(&example, &node.public.to_string());
    }
    fs::write(own.join("nodes.conf"), list)?;
    let nginx = Nginx::start(&folder, &Nginx::config(2, 4096, "include martlet/martlet.conf;"))?;
    Ok((nginx, address))
}
