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

// Give all projects the same name in k6's metrics, because otherwise k6 counts each address separately.
const nameTag = (path) => ({ tags: { name: path.replace(/\d+/g, "N") } });
const json = { "Content-Type": "application/json" };
const request = (method, path, body, headers = {}) =>
  http.request(method, __ENV.URL + path, body && JSON.stringify(body), { ...nameTag(path), headers: { ...headers, ...(body ? json : {}) } });

function expect(answer, status, name) {
  check(answer, { [name]: () => answer.status === status }) || fail(`${name}: HTTP ${answer.status} ${answer.error || answer.body}`);
  return answer;
}

export default function () {
  const page = expect(request("GET", "/", null, { Accept: "text/html" }), 200, "the page loads");
  for (const asset of page.body.match(/\/assets\/[^"]+/g)) {
    const answer = expect(request("GET", asset, null, { "Accept-Encoding": "gzip" }), 200, "its assets load");
    check(answer, { "its assets are compressed": () => answer.headers["Content-Encoding"] === "gzip" });
  }
  const project = expect(request("POST", "/api/projects", { name: "a journey" }), 201, "the project is created").json("id");
  const task = expect(request("POST", `/api/projects/${project}/tasks`, { title: "arrive" }), 201, "the task is created").json("id");
  expect(request("PATCH", `/api/tasks/${task}`, { done: true }), 200, "the task is completed");
  const [listedTask] = expect(request("GET", `/api/projects/${project}`), 200, "the project is returned").json("tasks");
  check(listedTask, { "the project has the completed task": ({ id, title, done }) => id === task && title === "arrive" && done });
  expect(request("GET", `/projects/${project}`, null, { Accept: "text/html" }), 200, "the address of the project can be opened");
  expect(request("DELETE", `/api/projects/${project}`), 204, "the project is deleted");
  const path = `/api/projects/${project}`;
  const after = http.get(__ENV.URL + path, { ...nameTag(path), responseCallback: http.expectedStatuses(404) });
  check(after, { "the deleted project is not found": () => after.status === 404 });
}
