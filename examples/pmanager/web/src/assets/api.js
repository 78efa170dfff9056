// Send a request to the api, and return its JSON. Throw an error with the text of the response if the api refuses the request.
async function request(method, path, body) {
  const headers = body ? { "Content-Type": "application/json" } : {};
  const answer = await fetch(`/api${path}`, { method, headers, body: body && JSON.stringify(body) });
  document.getElementById("release").value = answer.headers.get("X-Release") ?? "unknown";
  if (!answer.ok) throw new Error(`${answer.status} ${await answer.text()}`);
  return answer.status === 204 ? null : answer.json();
}

export const api = {
  projects: () => request("GET", "/projects"),
  project: (id) => request("GET", `/projects/${id}`),
  create: (name) => request("POST", "/projects", { name }),
  remove: (id) => request("DELETE", `/projects/${id}`),
  add: (id, title) => request("POST", `/projects/${id}/tasks`, { title }),
  tick: (id, done) => request("PATCH", `/tasks/${id}`, { done }),
  drop: (id) => request("DELETE", `/tasks/${id}`),
};
