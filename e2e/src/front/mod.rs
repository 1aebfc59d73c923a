//! nginx before nodes, with the files of `nginx/` as they ship; only addresses and paths are the test's.

mod names;
mod socket;

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use martlet_servers::{Nginx, free_port};

pub use names::NameServer;
pub use socket::{Opened, open};

use crate::{scene::Scene, wire::Rest};

/// The nodes in the file that ships.
const SHIPPED_NODES: [&str; 3] = ["10.0.0.11:8080", "10.0.0.12:8080", "10.0.0.13:8080"];
const SHIPPED_NAME: &str = "nodes.martlet.internal:8080";
const SHIPPED_RESOLVER: &str = "resolver 10.0.0.2 valid=10s";
/// For one answer through nginx; its own limits are below.
const ANSWER_DEADLINE: Duration = Duration::from_secs(180);

/// How nginx learns where the nodes are.
pub enum Nodes {
    /// `nodes-fixed.conf` with at most three nodes.
    Fixed(Vec<SocketAddr>),
    /// `nodes-dns.conf` with a name server and the port that all nodes have.
    Dns(SocketAddr, u16),
}

/// A running nginx. It ends with the value.
pub struct Front {
    port: u16,
    /// Empty without TLS.
    certificate: Vec<u8>,
    folder: PathBuf,
    _nginx: Nginx,
}

impl Front {
    /// Starts nginx on a free port with a certificate of its own. It takes `balancer` for a load balancer in front of it.
    ///
    /// # Errors
    /// nginx or openssl are missing, or the shipped files are not as this expects them.
    pub fn start(scene: &Scene, nodes: &Nodes, balancer: Ipv4Addr) -> Result<Self> {
        let folder = scene.folder().join("nginx");
        let own = folder.join("martlet");
        fs::create_dir_all(&own)?;
        let certificate = certify(&folder)?;
        let port = free_port();
        fs::write(own.join("martlet.conf"), shipped("martlet.conf")?)?;
        fs::write(own.join("site.conf"), site(port, &folder, balancer)?)?;
        fs::write(own.join("nodes.conf"), listed(nodes)?)?;
        let nginx = run(&folder)?;
        Ok(Self { port, certificate, folder, _nginx: nginx })
    }

    /// As [`Self::start`] with a fixed list, but without TLS: for the SDK, which trusts no certificate of a test.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn plain(scene: &Scene, nodes: Vec<SocketAddr>) -> Result<Self> {
        let folder = scene.folder().join("nginx");
        let own = folder.join("martlet");
        fs::create_dir_all(&own)?;
        let (port, logs) = (free_port(), folder.display());
        let site = format!(
            "listen 127.0.0.1:{port};\naccess_log {logs}/martlet-access.log martlet;\n\
             error_log {logs}/martlet-error.log crit;\n"
        );
        fs::write(own.join("martlet.conf"), shipped("martlet.conf")?)?;
        fs::write(own.join("site.conf"), site)?;
        fs::write(own.join("nodes.conf"), listed(&Nodes::Fixed(nodes))?)?;
        let nginx = run(&folder)?;
        Ok(Self { port, certificate: Vec::new(), folder, _nginx: nginx })
    }

    /// Where clients reach it.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.certificate.is_empty() { "http" } else { "https" };
        format!("{scheme}://127.0.0.1:{}", self.port)
    }

    /// An HTTP client that knows its certificate and no other, and comes from that address.
    ///
    /// # Errors
    /// The client can't be made.
    pub fn http(&self, from: Ipv4Addr) -> Result<reqwest::Client> {
        let certificate = reqwest::Certificate::from_pem(&self.certificate)?;
        let client = reqwest::Client::builder().tls_certs_only([certificate]).timeout(ANSWER_DEADLINE);
        Ok(client.local_address(IpAddr::V4(from)).build()?)
    }

    /// REST through it.
    ///
    /// # Errors
    /// As [`Self::http`].
    pub fn rest(&self) -> Result<Rest> {
        Ok(Rest::over(self.url(), self.http(Ipv4Addr::LOCALHOST)?))
    }

    /// Everything it wrote: access log and log of errors.
    ///
    /// # Errors
    /// They can't be read.
    pub fn logs(&self) -> Result<String> {
        let logs = ["martlet-access.log", "martlet-error.log", "error.log"];
        let logs: Result<Vec<_>, _> = logs.iter().map(|log| fs::read_to_string(self.folder.join(log))).collect();
        Ok(logs?.concat())
    }
}

fn run(folder: &Path) -> Result<Nginx> {
    Nginx::start(folder, &Nginx::config(2, 1000, "include martlet/martlet.conf;"))
}

fn shipped(file: &str) -> Result<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../nginx").join(file);
    fs::read_to_string(&path).with_context(|| format!("can't read {}", path.display()))
}

/// Replaces what the shipped file must contain.
fn replaced(text: &str, from: &str, to: &str) -> Result<String> {
    ensure!(text.contains(from), "the shipped file says no more: {from}");
    Ok(text.replace(from, to))
}

fn site(port: u16, folder: &Path, balancer: Ipv4Addr) -> Result<String> {
    let folder = folder.display();
    let mut text = shipped("site.conf")?;
    for (from, to) in [
        ("listen 443 ssl http2 ", format!("listen 127.0.0.1:{port} ssl http2 ")),
        ("listen [::]:443 ssl http2 backlog=8192;", String::new()),
        ("/etc/ssl/martlet/fullchain.pem", format!("{folder}/certificate.pem")),
        ("/etc/ssl/martlet/privkey.pem", format!("{folder}/key.pem")),
        ("/var/log/nginx/", format!("{folder}/")),
        ("#set_real_ip_from 10.0.0.5;", format!("set_real_ip_from {balancer};")),
        ("#real_ip_header X-Forwarded-For;", "real_ip_header X-Forwarded-For;".to_owned()),
    ] {
        text = replaced(&text, from, &to)?;
    }
    Ok(text)
}

fn listed(nodes: &Nodes) -> Result<String> {
    match nodes {
        Nodes::Fixed(addresses) => {
            let mut text = shipped("nodes-fixed.conf")?;
            for (number, shipped) in SHIPPED_NODES.iter().enumerate() {
                let node = addresses.get(number).map_or_else(|| "unused".to_owned(), SocketAddr::to_string);
                text = replaced(&text, shipped, &node)?;
            }
            let lines = text.lines().filter(|line| !line.contains("server unused"));
            Ok(lines.collect::<Vec<_>>().join("\n"))
        }
        Nodes::Dns(resolver, port) => {
            let text =
                replaced(&shipped("nodes-dns.conf")?, SHIPPED_RESOLVER, &format!("resolver {resolver} valid=1s"))?;
            replaced(&text, SHIPPED_NAME, &format!("nodes.martlet.internal:{port}"))
        }
    }
}

/// A key, and a certificate that is its own authority.
fn certify(folder: &Path) -> Result<Vec<u8>> {
    let (key, certificate) = (folder.join("key.pem"), folder.join("certificate.pem"));
    let output = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=martlet.test", "-addext", "subjectAltName=IP:127.0.0.1"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .output()
        .context("can't run openssl")?;
    ensure!(output.status.success(), "openssl: {}", String::from_utf8_lossy(&output.stderr));
    Ok(fs::read(certificate)?)
}
