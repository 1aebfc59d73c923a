// What the checks share: the fixtures, a device's socket over the JSON sub-protocol, and the summary.
//
// Nothing is encrypted here: `martlet-load fixtures` prepared the ciphertexts, the accounts and the group.

import { SharedArray } from 'k6/data';
import { Counter, Rate, Trend } from 'k6/metrics';
import { WebSocket } from 'k6/experimental/websockets';
import { clearTimeout, setTimeout } from 'k6/timers';

const file = __ENV.FIXTURES || 'fixtures.json';
// One copy for all virtual users.
const shared = new SharedArray('fixtures', () => [JSON.parse(open(file))]);
// A copy of its own for this one, taken once.
export const fixtures = shared[0];

/** From the node's acceptance of a message to its arrival at a reader, in milliseconds. Node and k6 are on one machine, so on one clock. */
export const fanout = new Trend('martlet_fanout_ms', true);
/** From the connection to the hello frame. */
export const connecting = new Trend('martlet_connecting_ms', true);
/** Sends that were refused, sockets that could not be opened or were lost: of all sends and sockets. */
export const errors = new Rate('martlet_errors');
/** Messages that a reader did not get. */
export const missing = new Counter('martlet_missing');
/** Messages that a reader got twice, or in another order. */
export const misplaced = new Counter('martlet_misplaced');
/** Messages that readers got. */
export const received = new Counter('martlet_received');

/**
 * Opens a device's socket, resumes, and hands every further frame to `on.frame(frame, socket)`. `on.ready(socket)` is called once the hello has
 * come; `on.end()` when the socket is closed, by whomever. After `on.patience` milliseconds it is closed in any case.
 */
export function device(token, on) {
  const began = Date.now();
  const socket = new WebSocket(fixtures.socket, ['martlet.v1.json'], { headers: { Authorization: `Bearer ${token}` } });
  let greeted = false;
  let ended = false;
  // Whether the end is this side's wish.
  let wanted = false;
  const close = () => {
    wanted = true;
    socket.close();
  };
  const end = () => {
    if (ended) return;
    ended = true;
    clearTimeout(timer);
    errors.add(!greeted || !wanted);
    if (on.end) on.end();
  };
  const timer = setTimeout(close, on.patience);
  const send = (frame) => socket.send(typeof frame === 'string' ? frame : JSON.stringify(frame));
  const handle = { send, close };
  socket.addEventListener('message', (event) => {
    const frame = JSON.parse(event.data);
    if (frame.hello && !greeted) {
      greeted = true;
      connecting.add(Date.now() - began);
      send({ resume: {} });
      if (on.ready) on.ready(handle);
    } else if (on.frame) {
      on.frame(frame, handle);
    }
  });
  socket.addEventListener('error', () => end());
  socket.addEventListener('close', () => end());
}

/** Follows the group's log from before the first message until `count` messages have come. */
export function follow(token, count, patience) {
  let next = Number(fixtures.head) + 1;
  const last = Number(fixtures.head) + count;
  let subscribed = false;
  device(token, {
    patience,
    ready: (socket) => {
      const cursor = { epoch: fixtures.epoch, seq: fixtures.head };
      socket.send({ ref: '1', subscribe: { logs: [{ conversationId: fixtures.conversation, cursor }] } });
    },
    frame: (frame, socket) => {
      if (frame.subscribed) {
        subscribed = Boolean(frame.subscribed.logs[0].state);
        errors.add(!subscribed);
      }
      if (!frame.logItems) return;
      const now = Date.now();
      for (const item of frame.logItems.items) {
        const seq = Number(item.entry.seq);
        if (seq !== next) {
          misplaced.add(1);
          continue;
        }
        next += 1;
        received.add(1);
        fanout.add(Math.max(0, now - Number(item.entry.acceptedAtMs)));
      }
      if (next > last) socket.close();
    },
    end: () => missing.add(last - next + 1),
  });
}

/** Sends the prepared messages, so many a second. */
export function write(count, rate, patience) {
  let answered = 0;
  device(fixtures.writer, {
    patience,
    ready: (socket) => {
      const began = Date.now();
      let sent = 0;
      const tick = () => {
        // As many as are due by now, so that a late timer does not lower the rate.
        const due = Math.min(count, Math.floor(((Date.now() - began) * rate) / 1000) + 1);
        while (sent < due) socket.send(fixtures.messages[sent++]);
        if (sent < count) setTimeout(tick, 1000 / rate);
      };
      tick();
    },
    frame: (frame, socket) => {
      if (!frame.accepted && !frame.problem) return;
      errors.add(Boolean(frame.problem));
      answered += 1;
      if (answered === count) socket.close();
    },
  });
}

/** The summary as JSON, to the file that SUMMARY names, and a few lines for people. */
export function summary(data) {
  const lines = ['', 'thresholds:'];
  for (const [name, metric] of Object.entries(data.metrics)) {
    for (const [rule, outcome] of Object.entries(metric.thresholds || {})) {
      lines.push(`  ${outcome.ok ? 'kept  ' : 'MISSED'}  ${name}: ${rule}`);
    }
  }
  for (const name of Object.keys(data.metrics).filter((name) => name.startsWith('martlet_')).sort()) {
    const values = Object.entries(data.metrics[name].values).map(([key, value]) => `${key}=${Math.round(value * 100) / 100}`);
    lines.push(`  ${name}: ${values.join(' ')}`);
  }
  return { stdout: `${lines.join('\n')}\n`, [__ENV.SUMMARY || 'summary.json']: JSON.stringify(data, null, 2) };
}
