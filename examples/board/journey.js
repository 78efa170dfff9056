// k6 script of `make journey`. A user opens a page with its assets, posts a message, and waits until the worker has processed it.
// The variable URL has the address. Every check must pass.

import { check, fail, sleep } from "k6";
import http from "k6/http";

export const options = {
  thresholds: { checks: ["rate==1"] },
  // k6 does not resolve names below .localhost by itself. The lab itself issues the certificate of its gateway.
  hosts: { "*.localhost": "127.0.0.1" },
  insecureSkipTLSVerify: /^https:\/\/[^/:]+\.localhost(:|$)/.test(__ENV.URL),
};

const get = (path) => http.get(__ENV.URL + path);

export default function () {
  const page = get("/");
  check(page, { "the page is there": (answer) => answer.status === 200 }) || fail(`/: HTTP ${page.status} ${page.error}`);
  for (const asset of page.body.match(/\/assets\/[^"]+/g)) {
    check(get(asset), { "its assets are there": (answer) => answer.status === 200 });
  }
  const json = { headers: { "Content-Type": "application/json" } };
  const sent = http.post(`${__ENV.URL}/api/messages`, JSON.stringify({ author: "journey", body: "a journey" }), json);
  check(sent, { "a message is taken": (answer) => answer.status === 201 }) || fail(`HTTP ${sent.status} ${sent.body}`);
  let seen;
  for (let tries = 0; tries < 60 && !(seen && seen.summary); tries++) {
    sleep(0.5);
    seen = get(`/api/messages/${sent.json("id")}`).json();
  }
  check(seen, { "the worker has summarised it, once": (message) => message.summary === "a journey" && message.processed === 1 });
  check(get("/api/messages").json(), { "it is on the board": (all) => all.some(({ id }) => id === seen.id) });
}
