// Whether a node works at all: health, one reader, one message.
//
//   martlet-load fixtures --server http://127.0.0.1:8080 --members 1 --messages 1 --out fixtures.json
//   k6 run -e FIXTURES=$PWD/fixtures.json loadtest/k6/smoke.js

import http from 'k6/http';
import { check } from 'k6';
import { fixtures, follow, summary, write } from './martlet.js';

export const options = {
  scenarios: {
    health: { executor: 'per-vu-iterations', vus: 1, iterations: 1, exec: 'health' },
    reader: { executor: 'per-vu-iterations', vus: 1, iterations: 1, exec: 'reader', maxDuration: '30s' },
    writer: { executor: 'per-vu-iterations', vus: 1, iterations: 1, exec: 'writer', startTime: '1s', maxDuration: '30s' },
  },
  thresholds: {
    checks: ['rate==1'],
    martlet_errors: ['rate==0'],
    martlet_missing: ['count==0'],
    martlet_received: ['count==1'],
  },
};

export function health() {
  check(http.get(`${fixtures.url}/health`), { 'the node is well': (answer) => answer.status === 200 });
  check(http.get(`${fixtures.url}/v1/mailbox`), { 'nobody reads without a token': (answer) => answer.status === 401 });
}

export function reader() {
  follow(fixtures.readers[0], 1, 20000);
}

export function writer() {
  write(1, 1, 20000);
}

export const handleSummary = summary;
