// Sockets: step by step up to all readers of the fixtures (10,000, for instance), each held until the end.
//
// (For 10,000 the node needs conversations.max_members_large=10001: the writer is a member too.)
//
//   martlet-load fixtures --server http://127.0.0.1:8080 --members 10000 --messages 1 --out fixtures.json
//   k6 run -e FIXTURES=$PWD/fixtures.json -e OVER_S=60 loadtest/k6/ramp.js

import exec from 'k6/execution';
import { Counter } from 'k6/metrics';
import { setTimeout } from 'k6/timers';
import { device, fixtures, summary } from './martlet.js';

/** Sockets that got their hello. */
const greeted = new Counter('martlet_greeted');

const perVu = Number(__ENV.SOCKETS_PER_VU || 200);
const over = Number(__ENV.OVER_S || 60);
const hold = Number(__ENV.HOLD_S || 30);
const sockets = fixtures.readers.length;
const maxDuration = `${over + hold + 60}s`;

export const options = {
  scenarios: {
    sockets: { executor: 'per-vu-iterations', vus: Math.ceil(sockets / perVu), iterations: 1, exec: 'ramp', maxDuration },
  },
  thresholds: {
    martlet_errors: ['rate<0.01'],
    martlet_connecting_ms: ['p(95)<1000'],
    martlet_greeted: [`count==${sockets}`],
  },
  summaryTrendStats: ['min', 'med', 'avg', 'p(95)', 'p(99)', 'max', 'count'],
};

export function ramp() {
  const from = exec.scenario.iterationInTest * perVu;
  const began = Date.now();
  const end = (over + hold) * 1000;
  fixtures.readers.slice(from, from + perVu).forEach((token, index) => {
    // Evenly over the time, whichever virtual user a socket belongs to.
    const at = ((from + index) / sockets) * over * 1000;
    setTimeout(() => device(token, { patience: end - (Date.now() - began), ready: () => greeted.add(1) }), at);
  });
}

export const handleSummary = summary;
