//! A name server (RFC 1035) that gives every name the same addresses, which the test changes.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use anyhow::Result;
use parking_lot::Mutex;
use tokio::{net::UdpSocket, task::AbortHandle};

const HEADER_BYTES: usize = 12;
/// Of a question, after its name: type and class.
const QUESTION_END_BYTES: usize = 4;

/// A running name server. It ends with the value.
pub struct NameServer {
    address: SocketAddr,
    addresses: Arc<Mutex<Vec<Ipv4Addr>>>,
    task: AbortHandle,
}

impl NameServer {
    /// Starts one on a free port.
    ///
    /// # Errors
    /// No port.
    pub async fn start(addresses: Vec<Ipv4Addr>) -> Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let (address, addresses) = (socket.local_addr()?, Arc::new(Mutex::new(addresses)));
        let known = Arc::clone(&addresses);
        let task = tokio::spawn(async move {
            let mut query = [0; 512];
            while let Ok((length, asker)) = socket.recv_from(&mut query).await {
                if let Some(answer) = answer(&query[..length], &known.lock()) {
                    // Whoever is gone needs no answer; the others ask again.
                    let _ = socket.try_send_to(&answer, asker);
                }
            }
        });
        Ok(Self { address, addresses, task: task.abort_handle() })
    }

    /// Where it answers.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it answers from now on.
    pub fn say(&self, addresses: Vec<Ipv4Addr>) {
        *self.addresses.lock() = addresses;
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One question in, its answer out; none if it is no question.
fn answer(query: &[u8], addresses: &[Ipv4Addr]) -> Option<Vec<u8>> {
    let name = query.get(HEADER_BYTES..)?.iter().position(|byte| *byte == 0)? + 1;
    let question = query.get(HEADER_BYTES..HEADER_BYTES + name + QUESTION_END_BYTES)?;
    // The query's id; an answer, recursion available; one question, so many answers.
    let mut answer = [&query[..2], &[0x81, 0x80, 0, 1, 0, u8::try_from(addresses.len()).ok()?, 0, 0, 0, 0]].concat();
    answer.extend(question);
    for address in addresses {
        // The name is where the question has it; type A, class IN, a second to live, four bytes.
        answer.extend([0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4]);
        answer.extend(address.octets());
    }
    Some(answer)
}
