// k6 script that requests the most frequent paths of an environment, and checks the responses against limits. slo.py runs it.
//
// Environment variables: URL, VISITS (JSON list of paths), SLOT (empty: the live slot), SUMMARY (file for the results), and either
// TIMES (number of sequential requests to each path, none may fail), or RATE (requests a second), SECONDS, ERRORS (share
// of requests that may fail), P95 and P99 (milliseconds).

import { sleep } from "k6";
import exec from "k6/execution";
import http from "k6/http";
import { Counter } from "k6/metrics";

const number = (name) => Number(__ENV[name] || 0);
const visits = JSON.parse(__ENV.VISITS);
const times = number("TIMES") * visits.length;
const due = times || Math.round(number("RATE") * number("SECONDS"));
const timeout = 10;
const beyond = { failed: new Counter("failed"), p95: new Counter("p95"), p99: new Counter("p99") };

// Maximum number of requests beyond each limit. They are shares of all requests of the run. Once a number is exceeded the
// result is certain, so the run ends.
const allowed = times ? { failed: 0 } : { failed: number("ERRORS") * due, p95: 0.05 * due, p99: 0.01 * due };
const limit = { p95: number("P95"), p99: number("P99") };
const threshold = (most) => [{ threshold: `count<=${Math.floor(most)}`, abortOnFail: true }];

const steady = {
  executor: "constant-arrival-rate",
  rate: number("RATE"),
  duration: `${number("SECONDS")}s`,
  preAllocatedVUs: number("RATE"),
  // Enough for the case that no request is answered. Otherwise k6 would skip requests, and they would not count as failed.
  maxVUs: number("RATE") * (timeout + 1),
};

export const options = {
  scenarios: {
    visits: {
      gracefulStop: `${timeout}s`,
      ...(times ? { executor: "per-vu-iterations", vus: 1, iterations: times } : steady),
    },
  },
  thresholds: Object.fromEntries(Object.entries(allowed).map(([name, most]) => [name, threshold(most)])),
  // Names below .localhost are this machine, as in browsers. The lab's gateway has a self-signed certificate.
  hosts: { "*.localhost": "127.0.0.1" },
  insecureSkipTLSVerify: /^https:\/\/[^/:]+\.localhost(:|$)/.test(__ENV.URL),
  maxRedirects: 0,
  summaryTrendStats: ["avg", "med", "p(95)", "p(99)", "max"],
};

http.setResponseCallback(http.expectedStatuses({ min: 200, max: 399 }));

let printed = 0;

export default function () {
  const path = visits[exec.scenario.iterationInTest % visits.length];
  const headers = __ENV.SLOT ? { "X-Tiers-Slot": __ENV.SLOT } : {};
  const answer = http.get(__ENV.URL + path, { headers, timeout: `${timeout}s` });
  const took = answer.timings.duration;
  const failed = answer.status < 200 || answer.status > 399;
  if (failed && printed++ < 1) console.error(`${path}: ${answer.error || `HTTP ${answer.status}`}`);
  beyond.failed.add(failed ? 1 : 0);
  beyond.p95.add(took > limit.p95 ? 1 : 0);
  beyond.p99.add(took > limit.p99 ? 1 : 0);
  if (times) sleep(0.05);
}

export function handleSummary(data) {
  return { [__ENV.SUMMARY]: JSON.stringify({ ...data, due, allowed }, null, 2) };
}
