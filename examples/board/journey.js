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
  check(page, { "the page loads": (answer) => answer.status === 200 }) || fail(`/: HTTP ${page.status} ${page.error}`);
  for (const asset of page.body.match(/\/assets\/[^"]+/g)) {
    check(get(asset), { "its assets load": (answer) => answer.status === 200 });
  }
  const json = { headers: { "Content-Type": "application/json" } };
  const response = http.post(`${__ENV.URL}/api/messages`, JSON.stringify({ author: "journey", body: "a journey" }), json);
  check(response, { "the message is accepted": (answer) => answer.status === 201 }) || fail(`HTTP ${response.status} ${response.body}`);
  let message;
  for (let tries = 0; tries < 60 && !(message && message.summary); tries++) {
    sleep(0.5);
    message = get(`/api/messages/${response.json("id")}`).json();
  }
  check(message, { "the worker has summarised it, once": ({ summary, processed }) => summary === "a journey" && processed === 1 });
  check(get("/api/messages").json(), { "the message is on the board": (all) => all.some(({ id }) => id === message.id) });
}
