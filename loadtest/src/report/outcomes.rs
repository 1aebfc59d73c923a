//! What every measurement says of its result.

use super::Outcome;
use crate::{
    comeback::ComebackResult, fanout::FanoutResult, hold::HoldResult, idle::IdleResult, mixed::MixedResult,
    peers::PeersResult, send::SendResult,
};

/// The text and the verdict are the result's own; its name and how its latencies count follow here.
macro_rules! outcome {
    ($result:ty, $measurement:expr, $corrected:expr) => {
        impl Outcome for $result {
            fn measurement(&self) -> &'static str {
                let name: fn(&Self) -> &'static str = $measurement;
                name(self)
            }

            fn text(&self) -> String {
                self.text()
            }

            fn is_clean(&self) -> bool {
                self.is_clean()
            }

            fn is_corrected(&self) -> Option<bool> {
                let corrected: fn(&Self) -> Option<bool> = $corrected;
                corrected(self)
            }
        }
    };
}

// No latency is measured.
outcome!(IdleResult, |_| "idle", |_| None);
outcome!(PeersResult, |_| "peers", |_| None);
// Open loops: every latency counts from when its message was due.
outcome!(FanoutResult, |_| "fanout", |_| Some(true));
outcome!(MixedResult, |_| "mixed", |_| Some(true));
outcome!(ComebackResult, |result| if result.back.is_some() { "storm" } else { "jitter" }, |_| Some(true));
// Without a rate the loop is closed: a sender waits for answers, and what waited with it is not counted.
outcome!(SendResult, |_| "send", |result| Some(result.rate.is_some()));
// One message for each log, as fast as they are taken, each counted from its sending.
outcome!(HoldResult, |_| "hold", |_| Some(false));
