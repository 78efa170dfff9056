// Asks an environment what its users ask most, for k6, and holds the answers to limits: see slo.py, which runs it.
//
// From the environment: URL, VISITS (a JSON list of paths), SLOT (empty: whichever is live), SUMMARY (the file for the results),
// and either TIMES, how often each path is asked, one after the other and none may fail, or RATE, SECONDS, ERRORS (a
// share), P95 and P99 (milliseconds).

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

// How many of all that are due may be beyond each limit. A share that is exceeded by then is so whatever comes after: the
// run ends there, and not a minute later than it has to.
const allowed = times ? { failed: 0 } : { failed: number("ERRORS") * due, p95: 0.05 * due, p99: 0.01 * due };
const limit = { p95: number("P95"), p99: number("P99") };
const threshold = (most) => [{ threshold: `count<=${Math.floor(most)}`, abortOnFail: true }];

const steady = {
  executor: "constant-arrival-rate",
  rate: number("RATE"),
  duration: `${number("SECONDS")}s`,
  preAllocatedVUs: number("RATE"),
  // As many as wait when nothing is answered at all: a request that is not sent would count as one that is well.
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
  // Names under .localhost are this machine, as browsers know by themselves; the lab's gateway made its own certificate.
  hosts: { "*.localhost": "127.0.0.1" },
  insecureSkipTLSVerify: /^https:\/\/[^/:]+\.localhost(:|$)/.test(__ENV.URL),
  maxRedirects: 0,
  summaryTrendStats: ["avg", "med", "p(95)", "p(99)", "max"],
};

http.setResponseCallback(http.expectedStatuses({ min: 200, max: 399 }));

let told = 0;

export default function () {
  const path = visits[exec.scenario.iterationInTest % visits.length];
  const headers = __ENV.SLOT ? { "X-Tiers-Slot": __ENV.SLOT } : {};
  const answer = http.get(__ENV.URL + path, { headers, timeout: `${timeout}s` });
  const took = answer.timings.duration;
  const failed = answer.status < 200 || answer.status > 399;
  if (failed && told++ < 1) console.error(`${path}: ${answer.error || `HTTP ${answer.status}`}`);
  beyond.failed.add(failed ? 1 : 0);
  beyond.p95.add(took > limit.p95 ? 1 : 0);
  beyond.p99.add(took > limit.p99 ? 1 : 0);
  if (times) sleep(0.05);
}

export function handleSummary(data) {
  return { [__ENV.SUMMARY]: JSON.stringify({ ...data, due, allowed }, null, 2) };
}
