//! What a session does beside reading its mailbox: sends and their answers, refusals, draining.

use std::time::Duration;

use martlet_protocol::{
    problem::{Code, close},
    wire::{self, client_frame, node_frame::Frame},
};
use martlet_storage::DeviceKey;

use super::{FrameRate, Output, Rules, Send, Session, Task};
use crate::{streams::MailboxRange, subscribers::Whisper};

const RULES: Rules =
    Rules { hold: Duration::from_millis(20), budget_bytes: 1 << 20, max_in_flight: 2, frames: FrameRate::new(0, 0) };

fn session() -> Session {
    Session::new(&wire::MailboxState { epoch: 1, head_seq: 0, acked_seq: 0 })
}

fn client(reference: u64, frame: client_frame::Frame) -> wire::ClientFrame {
    wire::ClientFrame { r#ref: reference, frame: Some(frame) }
}

fn send(session: &mut Session, reference: u64) -> (Option<Task>, Vec<Output>) {
    let mut out = Vec::new();
    let send = session.frame(client(reference, client_frame::Frame::Send(wire::SendRequest::default())), &mut out);
    (send, out)
}

fn answered(session: &mut Session, reference: u64, result: Result<wire::Accepted, wire::Problem>) -> Vec<Output> {
    let mut out = Vec::new();
    session.answered(reference, result.map(Frame::Accepted), &mut out);
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
    assert_eq!(
        handed,
        Some(Task::Send(Send { reference: 7, request: wire::SendRequest::default(), ephemeral: false }))
    );
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

#[test]
fn ephemeral_sends_are_handed_back_as_such_and_count_as_unanswered() {
    let mut session = session();
    let mut out = Vec::new();
    for reference in [1, 2] {
        let frame = client(reference, client_frame::Frame::SendEphemeral(wire::SendRequest::default()));
        let handed = session.frame(frame, &mut out);
        let expected = Send { reference, request: wire::SendRequest::default(), ephemeral: true };
        assert_eq!(handed, Some(Task::Send(expected)));
    }
    assert!(session.is_busy(&RULES));
    let accepted = Frame::AcceptedEphemeral(wire::AcceptedEphemeral { expires_at_ms: 5 });
    session.answered(2, Ok(accepted.clone()), &mut out);
    assert_eq!(out, [Output::Frame(wire::NodeFrame { r#ref: 2, frame: Some(accepted) })]);
    assert!(!session.is_busy(&RULES));
    session.drain(Duration::ZERO, &mut out);
    out.clear();
    let frame = client(3, client_frame::Frame::SendEphemeral(wire::SendRequest::default()));
    assert_eq!(session.frame(frame, &mut out), None);
    assert_eq!(refusal(&out), Some((3, Code::Unavailable)));
}

#[test]
fn whispers_are_heard_after_resume_in_time_and_while_there_is_room() {
    let mut session = session();
    let whisper = Whisper { device_key: DeviceKey(1), expires_at_ms: 100, payload: bytes::Bytes::from_static(b"w") };
    let hears = |session: &mut Session, full, now_ms| {
        let mut out = Vec::new();
        session.whisper(&whisper, full, now_ms, &mut out);
        out == [Output::Whisper(whisper.payload.clone())]
    };
    assert!(!hears(&mut session, false, 50), "not before it has resumed");
    let mut out = Vec::new();
    session.frame(client(1, client_frame::Frame::Resume(wire::Resume { mailbox: None })), &mut out);
    assert!(!hears(&mut session, false, 50), "not before its cursor is known to be good");
    session.range(MailboxRange { epoch: 1, head_seq: 0, items: Vec::new() }, Duration::ZERO, &RULES, &mut out);
    assert!(hears(&mut session, false, 99));
    assert!(!hears(&mut session, false, 100), "not when its time is over");
    assert!(!hears(&mut session, true, 50), "not when the socket has enough to write");
    let gap = crate::subscribers::LiveItem::Gap(wire::Gap { from_seq: 1, to_seq: 1, count: 1, reason: 1 });
    session.deliver(gap, true, Duration::ZERO, &RULES, &mut out);
    assert!(!hears(&mut session, false, 50), "not while it is behind");
}
