// The promises: fan-out p95 under 250 ms, fewer than 1 error in 100, nothing lost.
//
//   martlet-load fixtures --server http://127.0.0.1:8080 --members 1000 --messages 600 --out fixtures.json
//   k6 run -e FIXTURES=$PWD/fixtures.json -e RATE=20 loadtest/k6/sla.js
//
// All readers of the fixtures follow one group, spread over few virtual users (each costs more memory than its sockets do); one writer sends the
// prepared messages. The exit code is that of the thresholds.

import exec from 'k6/execution';
import { fixtures, follow, summary, write } from './martlet.js';

const rate = Number(__ENV.RATE || 20);
const perVu = Number(__ENV.SOCKETS_PER_VU || 50);
const readers = fixtures.readers.length;
const messages = fixtures.messages.length;
const ahead = Number(__ENV.AHEAD_S || 5);
const patience = (ahead + messages / rate + 30) * 1000;
const maxDuration = `${Math.ceil(patience / 1000) + 10}s`;

export const options = {
  scenarios: {
    readers: { executor: 'per-vu-iterations', vus: Math.ceil(readers / perVu), iterations: 1, exec: 'reader', maxDuration },
    writer: { executor: 'per-vu-iterations', vus: 1, iterations: 1, exec: 'writer', startTime: `${ahead}s`, maxDuration },
  },
  thresholds: {
    martlet_fanout_ms: ['p(95)<250'],
    martlet_errors: ['rate<0.01'],
    martlet_missing: ['count==0'],
    martlet_misplaced: ['count==0'],
    martlet_received: [`count==${readers * messages}`],
  },
  summaryTrendStats: ['min', 'med', 'avg', 'p(95)', 'p(99)', 'max', 'count'],
};

export function reader() {
  const from = exec.scenario.iterationInTest * perVu;
  fixtures.readers.slice(from, from + perVu).forEach((token) => follow(token, messages, patience));
}

export function writer() {
  write(messages, rate, patience);
}

export const handleSummary = summary;
