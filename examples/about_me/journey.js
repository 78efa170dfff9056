// k6 script of `make journey`. A visitor opens pages with their assets, is counted, and sends a message that the
// sender can read. The variable URL has the address. Every check must pass.

import { check, fail } from "k6";
import exec from "k6/execution";
import http from "k6/http";

export const options = {
  thresholds: { checks: ["rate==1"] },
  // k6 does not resolve names below .localhost by itself. The lab itself issues the certificate of its gateway.
  hosts: { "*.localhost": "127.0.0.1" },
  insecureSkipTLSVerify: /^https:\/\/[^/:]+\.localhost(:|$)/.test(__ENV.URL),
};

const get = (path) => http.get(__ENV.URL + path);

function page(path) {
  const answer = get(path);
  check(answer, { "the page loads": ({ status }) => status === 200 }) || fail(`${path}: HTTP ${answer.status} ${answer.error}`);
  return answer.body;
}

export default function () {
  const home = page("/");
  for (const asset of new Set(home.match(/\/_next\/static\/[^"\\?]+/g))) {
    check(get(asset), { "its assets load": ({ status }) => status === 200 });
  }
  const projects = page("/projects");
  check(get("/api/projects").json(), { "every project is shown": (all) => all.every(({ slug }) => projects.includes(`id="${slug}"`)) });

  const { visits } = http.post(`${__ENV.URL}/api/visits/contact`).json();
  const [, count] = page("/contact").match(/<small>(\d+)<!-- --> visits/);
  check(count, { "the visit is counted": (text) => Number(text) >= visits });

  const sender = `journey-${exec.vu.idInTest}-${exec.vu.iterationInInstance}-${Date.now()}`;
  const json = { headers: { "Content-Type": "application/json" } };
  const message = JSON.stringify({ name: sender, email: `${sender}@example.com`, body: "a journey" });
  const response = http.post(`${__ENV.URL}/api/messages`, message, json);
  check(response, { "the message is accepted": ({ status }) => status === 201 }) || fail(`HTTP ${response.status} ${response.body}`);
  check(page(`/contact/${response.json("id")}`), { "the sender can read the message": (body) => body.includes(sender) && body.includes("a journey") });
}
