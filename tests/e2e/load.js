// What users do to the board, for k6: see load.py, which runs it and reads its summary.
//
// From the environment: URL, SUMMARY (the file for the results), HOST, RATE and DURATION (seconds), INSECURE.
// RATE is of `steady` and `fresh` together, one request an iteration; `pages`, `pulse` and `slow` come on top.

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

// As many VUs as can wait when nothing is answered for a second, which a release may do to busy processors; with fewer
// k6 would drop requests, and only look as if it kept the rate.
const waiting = (rate) => ({ rate, preAllocatedVUs: rate });
// No request takes longer than this; an iteration has as long to end when the time is up.
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
  // The summary has of each scenario what a threshold asks for, even one without conditions.
  thresholds: Object.fromEntries(
    Object.keys(scenarios).flatMap((name) =>
      ["http_req_failed", "http_req_duration"].map((metric) => [`${metric}{scenario:${name}}`, []]),
    ),
  ),
};

http.setResponseCallback(http.expectedStatuses(200, 201));

let told = 0;

function tell(what) {
  if (told++ < 3) console.error(`${new Date().toISOString()} ${exec.scenario.name}: ${what}`);
}

const excerpt = (body) => (body || "").slice(0, 100).replace(/\s+/g, " ");

function ask(method, path, headers = {}, body = null) {
  const answer = http.request(method, __ENV.URL + path, body, { headers: { ...host, ...headers }, timeout });
  if (answer.status !== 200 && answer.status !== 201) {
    tell(`${method} ${path}: ${answer.status} ${answer.error} ${excerpt(answer.body)}`);
  }
  return answer;
}

const get = (path, headers) => ask("GET", path, headers);
const assetsOf = (page) => page.body.match(/\/assets\/[^"]+/g);

// k6 cuts what is in flight when it is told to stop. So load.py asks for one more VU of `stop` instead, and all see that
// there are more of them than at the start: they begin nothing new, and what they began ends before the run does.
const stopping = (data) => exec.instance.vusInitialized > data.vus;

export function stop() {
  sleep(QUIET);
  exec.test.abort("everything in flight has ended");
}

export function setup() {
  const page = http.get(`${__ENV.URL}/`, { headers: { ...host, ...DOCUMENT } });
  if (page.status !== 200) throw new Error(`the page does not answer: ${page.status} ${page.error}`);
  return { assets: assetsOf(page), run: Date.now(), vus: exec.instance.vusInitialized };
}

function write(data, headers) {
  const body = `${data.run} ${exec.scenario.name} ${exec.scenario.iterationInTest}`;
  const json = { "Content-Type": "application/json", ...headers };
  if (ask("POST", "/api/messages", json, JSON.stringify({ author: "load", body })).status === 201) acknowledged.add(1);
}

// Twenty iterations: seven pages, six assets, six questions to the api, one write.
function one(data, headers = {}) {
  if (stopping(data)) return;
  const turn = exec.scenario.iterationInTest % 20;
  if (turn === 0) write(data, headers);
  else if (turn % 3 === 0) get(turn % 2 ? "/api/messages?limit=5" : "/api/release", headers);
  else if (turn % 3 === 1) get("/", { ...DOCUMENT, ...headers });
  else get(data.assets[turn % data.assets.length], headers);
}

export const steady = (data) => one(data);

// k6 turns connection reuse off for all scenarios or none; with this header both sides close after the answer.
export const fresh = (data) => one(data, { Connection: "close" });

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

// As a browser does it: k6 keeps cookies for the length of an iteration.
export function pages(data) {
  if (stopping(data)) return;
  const page = get("/", DOCUMENT);
  if (page.status !== 200) return;
  const seen = [page.headers["X-Release"]];
  for (const pause of [0, 2]) {
    sleep(pause);
    for (const asset of assetsOf(page)) if (get(asset, { Accept: "*/*" }).status !== 200) stale.add(1);
    const answers = ["/release.json", "/api/release"].map((path) => get(path, { Accept: "*/*" }));
    seen.push(...answers.filter((answer) => answer.status === 200).map((answer) => answer.json("release")));
  }
  if (new Set(seen).size > 1) {
    mixed.add(1);
    tell(`mixed: ${seen.join(" ")}`);
  }
}

// `seconds` is how long requests were begun.
export function handleSummary(data) {
  const count = (metric, key = "count") => data.metrics[metric]?.values[key] ?? 0;
  const text = `${count("http_reqs")} requests, ${count("http_req_failed", "passes")} failed, `
    + `${count("dropped_iterations")} dropped, longest gap ${count("gap", "max")} ms\n`;
  const seconds = data.state.testRunDurationMs / 1000 - QUIET;
  return { [__ENV.SUMMARY]: JSON.stringify({ ...data, seconds }, null, 2), stdout: text };
}
