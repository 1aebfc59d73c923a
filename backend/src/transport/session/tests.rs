//! What a session does beside reading its mailbox: sends and their answers, refusals, draining.

use std::time::Duration;

use martlet_protocol::{
    problem::{Code, close},
    wire::{self, client_frame, node_frame::Frame},
};

use super::{Output, Rules, Send, Session};

const RULES: Rules = Rules { hold: Duration::from_millis(20), budget_bytes: 1 << 20, max_in_flight: 2 };

fn session() -> Session {
    Session::new(&wire::MailboxState { epoch: 1, head_seq: 0, acked_seq: 0 })
}

fn client(reference: u64, frame: client_frame::Frame) -> wire::ClientFrame {
    wire::ClientFrame { r#ref: reference, frame: Some(frame) }
}

fn send(session: &mut Session, reference: u64) -> (Option<Send>, Vec<Output>) {
    let mut out = Vec::new();
    let send = session.frame(client(reference, client_frame::Frame::Send(wire::SendRequest::default())), &mut out);
    (send, out)
}

fn answered(session: &mut Session, reference: u64, result: Result<wire::Accepted, wire::Problem>) -> Vec<Output> {
    let mut out = Vec::new();
    session.answered(reference, result, &mut out);
    out
}

/// Ref and code of the one refusal.
fn refusal(out: &[Output]) -> Option<(u64, Code)> {
    match out {
        [Output::Frame(wire::NodeFrame { r#ref, frame: Some(Frame::Problem(problem)) })] => {
            Some((*r#ref, Code::parse(&problem.code)?))
        }
        _ => None,
    }
}

#[test]
fn sends_are_handed_back_and_answered_by_ref() {
    let mut session = session();
    let (handed, out) = send(&mut session, 7);
    assert_eq!(handed, Some(Send { reference: 7, request: wire::SendRequest::default() }));
    assert_eq!(out, []);
    let frame = Some(Frame::Accepted(wire::Accepted::default()));
    let expected = Output::Frame(wire::NodeFrame { r#ref: 7, frame });
    assert_eq!(answered(&mut session, 7, Ok(wire::Accepted::default())), [expected]);
}

#[test]
fn without_a_ref_only_a_problem_is_told() {
    let mut session = session();
    send(&mut session, 0);
    send(&mut session, 0);
    assert_eq!(answered(&mut session, 0, Ok(wire::Accepted::default())), []);
    let out = answered(&mut session, 0, Err(Code::Busy.problem("")));
    assert_eq!(refusal(&out), Some((0, Code::Busy)));
}

#[test]
fn it_is_busy_while_as_many_sends_wait_as_may() {
    let mut session = session();
    send(&mut session, 1);
    assert!(!session.is_busy(&RULES));
    send(&mut session, 2);
    assert!(session.is_busy(&RULES));
    answered(&mut session, 1, Ok(wire::Accepted::default()));
    assert!(!session.is_busy(&RULES));
}

#[test]
fn refusals_carry_their_ref() {
    let mut session = session();
    let mut out = Vec::new();
    session.frame(wire::ClientFrame { r#ref: 5, frame: None }, &mut out);
    assert_eq!(refusal(&out), Some((5, Code::Malformed)));
    out.clear();
    let ack = wire::Ack { mailbox: Some(wire::Cursor { epoch: 1, seq: 0 }) };
    session.frame(client(6, client_frame::Frame::Ack(ack)), &mut out);
    assert_eq!(refusal(&out), Some((6, Code::FrameUnexpected)));
}

#[test]
fn draining_waits_for_answers_and_takes_no_more_sends() {
    let mut session = session();
    send(&mut session, 1);
    let mut out = Vec::new();
    session.drain(Duration::from_millis(1500), &mut out);
    session.drain(Duration::from_millis(9), &mut out);
    let told = Frame::Draining(wire::Draining { retry_after_ms: 1500 });
    assert_eq!(out, [Output::Frame(super::unasked(told))]);
    let (handed, out) = send(&mut session, 2);
    assert_eq!((handed, refusal(&out)), (None, Some((2, Code::Unavailable))));
    let out = answered(&mut session, 1, Ok(wire::Accepted::default()));
    assert_eq!(out.last(), Some(&Output::Close(close::GOING_AWAY)));
}

#[test]
fn draining_closes_an_idle_socket_at_once() {
    let mut out = Vec::new();
    session().drain(Duration::ZERO, &mut out);
    assert_eq!(out.last(), Some(&Output::Close(close::GOING_AWAY)));
}
