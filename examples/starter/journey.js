// k6 script of `make journey`. A user opens the page with its assets, writes a note, and reads the note again.
// The variable URL has the address. Every check must pass.

import { check, fail } from "k6";
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
  for (const [, asset] of page.body.matchAll(/(?:href|src)="(\/[^"]+)"/g)) {
    check(get(asset), { "its assets load": (answer) => answer.status === 200 });
  }
  const json = { headers: { "Content-Type": "application/json" } };
  const response = http.post(`${__ENV.URL}/api/notes`, JSON.stringify({ text: "a journey" }), json);
  check(response, { "the note is accepted": (answer) => answer.status === 201 }) || fail(`HTTP ${response.status} ${response.body}`);
  check(get("/api/notes").json(), { "the note is listed": (all) => all.some(({ id }) => id === response.json("id")) });
}
