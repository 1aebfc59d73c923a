//! What the tests over real processes share. In reading order:
//!
//! 1. [`scene`]: one test's folder, seed, deadline and logs;
//! 2. [`node`]: the `martlet` binary, started, killed, paused and started again on the same data;
//! 3. [`front`]: nginx with the files of `nginx/`, and a name server for it;
//! 4. [`wire`]: devices that speak to a node by the protocol alone, without the SDK, so that a test decides every frame;
//! 5. [`history`] and [`checker`]: what happened, and whether it may have happened;
//! 6. [`crash`]: participants who go on through crashes, and who crashes the node;
//! 7. [`trace`]: system calls of a traced node, and whether each answer left after its sync;
//! 8. [`sdk`]: devices that run the SDK on stores of their own, and die;
//! 9. [`nemesis`]: a cluster with faults of every kind, and a checker of what may have happened;
//! 10. [`copy`] and [`guess`]: a node's files as a thief gets them, and how well guesses from them did against chance.
//!
//! There is no test of speed here: waits are for conditions, and deadlines are generous.

pub mod checker;
pub mod clock;
pub mod copy;
pub mod crash;
pub mod front;
pub mod guess;
pub mod history;
pub mod nemesis;
pub mod node;
pub mod scene;
pub mod sdk;
pub mod trace;
pub mod wire;
