// k6 script of `make journey`. A user opens a page with its assets, creates a project with a task, and completes the task.
// The variable URL has the address. Every check must pass.

import { check, fail } from "k6";
import http from "k6/http";

export const options = {
  thresholds: { checks: ["rate==1"] },
  // k6 does not resolve names below .localhost by itself. The lab itself issues the certificate of its gateway.
  hosts: { "*.localhost": "127.0.0.1" },
  insecureSkipTLSVerify: /^https:\/\/[^/:]+\.localhost(:|$)/.test(__ENV.URL),
};

// A name for all the projects there are: k6 would count each address as something of its own.
const named = (path) => ({ tags: { name: path.replace(/\d+/g, "N") } });
const json = { "Content-Type": "application/json" };
const ask = (method, path, body, headers = {}) =>
  http.request(method, __ENV.URL + path, body && JSON.stringify(body), { ...named(path), headers: { ...headers, ...(body ? json : {}) } });

function expect(answer, status, what) {
  check(answer, { [what]: () => answer.status === status }) || fail(`${what}: HTTP ${answer.status} ${answer.error || answer.body}`);
  return answer;
}

export default function () {
  const page = expect(ask("GET", "/", null, { Accept: "text/html" }), 200, "the page is there");
  for (const asset of page.body.match(/\/assets\/[^"]+/g)) {
    const answer = expect(ask("GET", asset, null, { "Accept-Encoding": "gzip" }), 200, "its assets are there");
    check(answer, { "and compressed": () => answer.headers["Content-Encoding"] === "gzip" });
  }
  const project = expect(ask("POST", "/api/projects", { name: "a journey" }), 201, "a project is taken").json("id");
  const task = expect(ask("POST", `/api/projects/${project}/tasks`, { title: "arrive" }), 201, "a task is taken").json("id");
  expect(ask("PATCH", `/api/tasks/${task}`, { done: true }), 200, "it is ticked off");
  const [seen] = expect(ask("GET", `/api/projects/${project}`), 200, "the project is there").json("tasks");
  check(seen, { "with its task, done": ({ id, title, done }) => id === task && title === "arrive" && done });
  expect(ask("GET", `/projects/${project}`, null, { Accept: "text/html" }), 200, "its address can be opened");
  expect(ask("DELETE", `/api/projects/${project}`), 204, "it is taken away");
  const path = `/api/projects/${project}`;
  const after = http.get(__ENV.URL + path, { ...named(path), responseCallback: http.expectedStatuses(404) });
  check(after, { "and gone": () => after.status === 404 });
}
