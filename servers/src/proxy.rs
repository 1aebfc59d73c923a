//! A TCP proxy between a node and a service, to spoil the line on demand. It knows no protocol, and keeps no more than a chunk per
//! direction.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result};
use parking_lot::{Condvar, Mutex};
use socket2::SockRef;

use crate::free_port;

/// What is read at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// How long the proxy tries to reach its target for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How often a writer whose reader does not read looks whether its connection was reset meanwhile.
const WRITE_PATIENCE: Duration = Duration::from_millis(100);

/// What the proxy does with what passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Open,
    Slow(Duration),
    Stalled,
    Cut,
}

/// A line to a service that can be cut, stalled and slowed. It ends with its value.
pub struct Proxy {
    port: u16,
    line: Arc<Line>,
    acceptor: Mutex<Option<Acceptor>>,
}

/// What the threads share.
struct Line {
    target: SocketAddr,
    mode: Mutex<Mode>,
    changed: Condvar,
    links: Mutex<Vec<Link>>,
}

/// One connection: the client's socket and the target's, and a thread per direction. The threads own the sockets, so that these are
/// closed when both are done.
struct Link {
    sockets: [Weak<TcpStream>; 2],
    dead: Arc<AtomicBool>,
    pumps: [JoinHandle<()>; 2],
}

struct Acceptor {
    listener: Arc<TcpListener>,
    thread: JoinHandle<()>,
}

impl Proxy {
    /// Starts one on a free port of 127.0.0.1. The target need not be there yet: without it, connections are reset.
    ///
    /// # Errors
    /// No port, no thread.
    pub fn start(target: SocketAddr) -> Result<Self> {
        let line = Line { target, mode: Mutex::new(Mode::Cut), changed: Condvar::new(), links: Mutex::new(Vec::new()) };
        let proxy = Self { port: free_port(), line: Arc::new(line), acceptor: Mutex::new(None) };
        proxy.heal()?;
        Ok(proxy)
    }

    /// Where it listens on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// How many connections go through it.
    #[must_use]
    pub fn connections(&self) -> usize {
        let mut links = self.line.links.lock();
        links.retain(|link| !link.is_over());
        links.len()
    }

    /// Resets every connection and refuses new ones. Returns when that is done.
    pub fn cut(&self) {
        let mut acceptor = self.acceptor.lock();
        self.line.set(Mode::Cut);
        if let Some(Acceptor { listener, thread }) = acceptor.take() {
            // Wakes it, and resets who waits to be accepted. That it fails, if it does, means that it is closed.
            let _ = SockRef::from(&*listener).shutdown(Shutdown::Both);
            let _ = thread.join();
        }
        self.reset();
    }

    /// Resets every connection; new ones go through.
    pub fn reset(&self) {
        let links = std::mem::take(&mut *self.line.links.lock());
        links.iter().for_each(Link::reset);
        // Under the lock, so that no pump is between its look and its wait.
        let mode = self.line.mode.lock();
        self.line.changed.notify_all();
        drop(mode);
        for pump in links.into_iter().flat_map(|link| link.pumps) {
            let _ = pump.join();
        }
    }

    /// Accepts, and forwards nothing: connections stay open, and what was sent waits.
    ///
    /// # Errors
    /// It was cut, and the port can't be had again.
    pub fn stall(&self) -> Result<()> {
        self.carry(Mode::Stalled)
    }

    /// Delays every chunk (what one read returns, 64 KiB at most) by a time, each way.
    ///
    /// # Errors
    /// As [`Self::stall`].
    pub fn slow(&self, delay: Duration) -> Result<()> {
        self.carry(Mode::Slow(delay))
    }

    /// Forwards everything at once again, first what waits.
    ///
    /// # Errors
    /// As [`Self::stall`].
    pub fn heal(&self) -> Result<()> {
        self.carry(Mode::Open)
    }

    fn carry(&self, mode: Mode) -> Result<()> {
        let mut acceptor = self.acceptor.lock();
        self.line.set(mode);
        if acceptor.is_none() {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, self.port)).context("the proxy can't listen")?;
            let listener = Arc::new(listener);
            let (line, own) = (Arc::clone(&self.line), Arc::clone(&listener));
            let thread = thread::Builder::new().name("proxy".into()).spawn(move || line.accept(&own))?;
            *acceptor = Some(Acceptor { listener, thread });
        }
        Ok(())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.cut();
    }
}

impl Line {
    fn set(&self, mode: Mode) {
        *self.mode.lock() = mode;
        self.changed.notify_all();
    }

    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        loop {
            let accepted = listener.accept();
            if *self.mode.lock() == Mode::Cut {
                return;
            }
            // What can fail is the client's doing (it left) or a lack of files; the next one may fare better.
            let Ok((client, _)) = accepted else { continue };
            match self.link(client) {
                Ok(link) => {
                    let mut links = self.links.lock();
                    links.retain(|link| !link.is_over());
                    links.push(link);
                }
                // The client's socket is gone, and with it the connection.
                Err(_) => continue,
            }
        }
    }

    fn link(self: &Arc<Self>, client: TcpStream) -> Result<Link> {
        SockRef::from(&client).set_linger(Some(Duration::ZERO))?;
        let target = TcpStream::connect_timeout(&self.target, CONNECT_TIMEOUT)?;
        for socket in [&client, &target] {
            SockRef::from(socket).set_linger(None)?;
            socket.set_nodelay(true)?;
            socket.set_write_timeout(Some(WRITE_PATIENCE))?;
        }
        let (client, target) = (Arc::new(client), Arc::new(target));
        let sockets = [Arc::downgrade(&client), Arc::downgrade(&target)];
        let dead = Arc::new(AtomicBool::new(false));
        let pump = |from: &Arc<TcpStream>, to: &Arc<TcpStream>| {
            let (line, dead, from, to) = (Arc::clone(self), Arc::clone(&dead), Arc::clone(from), Arc::clone(to));
            thread::Builder::new().name("proxy-link".into()).spawn(move || line.pump(&from, &to, &dead))
        };
        let pumps = [pump(&client, &target)?, pump(&target, &client)?];
        Ok(Link { sockets, dead, pumps })
    }

    /// Carries one direction until its end.
    fn pump(&self, from: &TcpStream, to: &TcpStream, dead: &AtomicBool) {
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let read = match (&*from).read(&mut chunk) {
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return abort(from, to, dead),
            };
            if !self.may_pass(dead) {
                return;
            }
            if read == 0 {
                // One side has said all; the other may go on.
                let _ = to.shutdown(Shutdown::Write);
                return;
            }
            if !write(to, &chunk[..read], dead) {
                return abort(from, to, dead);
            }
        }
    }

    /// Waits as long as the mode says; false if the connection was reset meanwhile.
    fn may_pass(&self, dead: &AtomicBool) -> bool {
        let mut mode = self.mode.lock();
        loop {
            if dead.load(Ordering::SeqCst) {
                return false;
            }
            match *mode {
                Mode::Open => return true,
                Mode::Slow(delay) => {
                    if self.changed.wait_for(&mut mode, delay).timed_out() {
                        return !dead.load(Ordering::SeqCst);
                    }
                }
                // Cut: the connection is about to be reset.
                Mode::Stalled | Mode::Cut => self.changed.wait(&mut mode),
            }
        }
    }
}

impl Link {
    fn is_over(&self) -> bool {
        self.pumps.iter().all(JoinHandle::is_finished)
    }

    /// Makes both threads let go of the sockets, and both ends see a reset then.
    fn reset(&self) {
        self.dead.store(true, Ordering::SeqCst);
        for socket in self.sockets.iter().filter_map(Weak::upgrade) {
            let_go(&socket);
        }
    }
}

/// Ends both directions after an error in one, so that neither end waits for what can't come.
fn abort(from: &TcpStream, to: &TcpStream, dead: &AtomicBool) {
    dead.store(true, Ordering::SeqCst);
    [from, to].into_iter().for_each(let_go);
}

/// Its close is to be a reset, and who reads from it wakes. Nothing is sent yet: ending only the reading side is invisible outside.
fn let_go(socket: &TcpStream) {
    let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
    let _ = socket.shutdown(Shutdown::Read);
}

/// Writes all of it; false if the connection is gone.
fn write(mut to: &TcpStream, mut bytes: &[u8], dead: &AtomicBool) -> bool {
    while !bytes.is_empty() {
        match to.write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) => match error.kind() {
                ErrorKind::Interrupted => {}
                ErrorKind::WouldBlock | ErrorKind::TimedOut if !dead.load(Ordering::SeqCst) => {}
                _ => return false,
            },
        }
    }
    true
}
