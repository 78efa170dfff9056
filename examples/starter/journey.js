// The way of a user through the notes, for k6 (`make journey APP=…`): a page, a note, and the note again.
// From the environment: URL. Every check has to hold.

import { check, fail } from "k6";
import http from "k6/http";

export const options = {
  thresholds: { checks: ["rate==1"] },
  // Names under .localhost are this machine, as browsers know by themselves; the lab's gateway made its own certificate.
  hosts: { "*.localhost": "127.0.0.1" },
  insecureSkipTLSVerify: /^https:\/\/[^/:]+\.localhost(:|$)/.test(__ENV.URL),
};

const get = (path) => http.get(__ENV.URL + path);

export default function () {
  const page = get("/");
  check(page, { "the page is there": (answer) => answer.status === 200 }) || fail(`/: HTTP ${page.status} ${page.error}`);
  for (const [, asset] of page.body.matchAll(/(?:href|src)="(\/[^"]+)"/g)) {
    check(get(asset), { "what it asks for is there": (answer) => answer.status === 200 });
  }
  const json = { headers: { "Content-Type": "application/json" } };
  const sent = http.post(`${__ENV.URL}/api/notes`, JSON.stringify({ text: "a journey" }), json);
  check(sent, { "a note is taken": (answer) => answer.status === 201 }) || fail(`HTTP ${sent.status} ${sent.body}`);
  check(get("/api/notes").json(), { "it is among the notes": (all) => all.some(({ id }) => id === sent.json("id")) });
}
