// k6 script: requests of users to the board. load.py runs this script and reads its summary.
//
// Environment variables: URL, SUMMARY (file for the results), HOST, RATE (requests per second), DURATION (seconds), INSECURE.
// RATE is the sum of the scenarios `steady` and `fresh`. Requests of `pages`, `pulse` and `slow` are in addition to it.

import { sleep } from "k6";
import exec from "k6/execution";
import http from "k6/http";
import { Counter, Trend } from "k6/metrics";

const FRESH = 20;
const SLOW = 5;
const QUIET = SLOW + 2;
const RATE = Number(__ENV.RATE || 300);
const duration = `${__ENV.DURATION || 600}s`;
const host = __ENV.HOST ? { Host: __ENV.HOST } : {};
const DOCUMENT = { Accept: "text/html,application/xhtml+xml,*/*;q=0.8" };

const acknowledged = new Counter("acknowledged");
const mixed = new Counter("mixed");
const stale = new Counter("stale");
const gap = new Trend("gap", true);

// Allocate one VU for each request of a second. During a release a busy machine may answer nothing for a second. With fewer
// VUs k6 would drop the requests that are due in this second.
const waiting = (rate) => ({ rate, preAllocatedVUs: rate });
// Limit of each request. After DURATION each iteration gets the same time to end.
const timeout = "15s";
const common = { duration, gracefulStop: timeout };
const arriving = { ...common, executor: "constant-arrival-rate", timeUnit: "1s" };
const scenarios = {
  steady: { ...arriving, exec: "steady", ...waiting(RATE - FRESH) },
  fresh: { ...arriving, exec: "fresh", ...waiting(FRESH) },
  pages: { ...arriving, exec: "pages", rate: 2, preAllocatedVUs: 15 },
  slow: { ...common, exec: "slow", executor: "constant-vus", vus: 1 },
  pulse: { ...common, exec: "pulse", executor: "constant-vus", vus: 1 },
  stop: { duration, exec: "stop", executor: "externally-controlled", vus: 0, maxVUs: 1 },
};

export const options = {
  scenarios,
  insecureSkipTLSVerify: Boolean(__ENV.INSECURE),
  maxRedirects: 0,
  summaryTrendStats: ["avg", "med", "p(95)", "p(99)", "max"],
  // The summary contains the metrics of a single scenario only if a threshold names them. These thresholds have no conditions.
  thresholds: Object.fromEntries(
    Object.keys(scenarios).flatMap((name) =>
      ["http_req_failed", "http_req_duration"].map((metric) => [`${metric}{scenario:${name}}`, []]),
    ),
  ),
};

http.setResponseCallback(http.expectedStatuses(200, 201));

let reports = 0;

// Write at most three problems of each VU to the log.
function report(problem) {
  if (reports++ < 3) console.error(`${new Date().toISOString()} ${exec.scenario.name}: ${problem}`);
}

const excerpt = (body) => (body || "").slice(0, 100).replace(/\s+/g, " ");

function request(method, path, headers = {}, body = null) {
  const answer = http.request(method, __ENV.URL + path, body, { headers: { ...host, ...headers }, timeout });
  if (answer.status !== 200 && answer.status !== 201) {
    report(`${method} ${path}: ${answer.status} ${answer.error} ${excerpt(answer.body)}`);
  }
  return answer;
}

const get = (path, headers) => request("GET", path, headers);
const assetsOf = (page) => page.body.match(/\/assets\/[^"]+/g);

// k6 aborts pending requests when it is stopped from outside. So load.py starts one VU of the scenario `stop` instead.
// The other VUs notice that there are more VUs than at the start. They start no new request, and pending requests end
// before `stop` ends the run.
const stopping = (data) => exec.instance.vusInitialized > data.vus;

export function stop() {
  sleep(QUIET);
  exec.test.abort("all pending requests have ended");
}

export function setup() {
  const page = http.get(`${__ENV.URL}/`, { headers: { ...host, ...DOCUMENT } });
  if (page.status !== 200) throw new Error(`the page does not answer: ${page.status} ${page.error}`);
  return { assets: assetsOf(page), run: Date.now(), vus: exec.instance.vusInitialized };
}

function write(data, headers) {
  const body = `${data.run} ${exec.scenario.name} ${exec.scenario.iterationInTest}`;
  const json = { "Content-Type": "application/json", ...headers };
  if (request("POST", "/api/messages", json, JSON.stringify({ author: "load", body })).status === 201) acknowledged.add(1);
}

// Twenty iterations contain seven pages, six assets, six reads from the api and one write.
function sendOne(data, headers = {}) {
  if (stopping(data)) return;
  const turn = exec.scenario.iterationInTest % 20;
  if (turn === 0) write(data, headers);
  else if (turn % 3 === 0) get(turn % 2 ? "/api/messages?limit=5" : "/api/release", headers);
  else if (turn % 3 === 1) get("/", { ...DOCUMENT, ...headers });
  else get(data.assets[turn % data.assets.length], headers);
}

export const steady = (data) => sendOne(data);

// k6 can disable connection reuse only for all scenarios. With this header both sides close the connection after the answer.
export const fresh = (data) => sendOne(data, { Connection: "close" });

export function slow(data) {
  if (stopping(data)) sleep(1);
  else get(`/api/slow?seconds=${SLOW}`);
}

let last;

export function pulse(data) {
  if (!stopping(data) && get("/api/release").status === 200) {
    const now = Date.now();
    if (last) gap.add(now - last);
    last = now;
  }
  sleep(0.01);
}

// Load a page as a browser does: k6 keeps cookies during an iteration.
export function pages(data) {
  if (stopping(data)) return;
  const page = get("/", DOCUMENT);
  if (page.status !== 200) return;
  const releases = [page.headers["X-Release"]];
  for (const pause of [0, 2]) {
    sleep(pause);
    for (const asset of assetsOf(page)) if (get(asset, { Accept: "*/*" }).status !== 200) stale.add(1);
    const answers = ["/release.json", "/api/release"].map((path) => get(path, { Accept: "*/*" }));
    releases.push(...answers.filter((answer) => answer.status === 200).map((answer) => answer.json("release")));
  }
  if (new Set(releases).size > 1) {
    mixed.add(1);
    report(`mixed: ${releases.join(" ")}`);
  }
}

// `seconds` is the time in which the VUs started requests, without the wait of `stop`.
export function handleSummary(data) {
  const count = (metric, key = "count") => data.metrics[metric]?.values[key] ?? 0;
  const text = `${count("http_reqs")} requests, ${count("http_req_failed", "passes")} failed, `
    + `${count("dropped_iterations")} dropped, longest gap ${count("gap", "max")} ms\n`;
  const seconds = data.state.testRunDurationMs / 1000 - QUIET;
  return { [__ENV.SUMMARY]: JSON.stringify({ ...data, seconds }, null, 2), stdout: text };
}
