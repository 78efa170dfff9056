// Asks the api; a refusal is an error with what the api says of it.
async function ask(method, path, body) {
  const headers = body ? { "Content-Type": "application/json" } : {};
  const answer = await fetch(`/api${path}`, { method, headers, body: body && JSON.stringify(body) });
  document.getElementById("release").value = answer.headers.get("X-Release") ?? "nobody";
  if (!answer.ok) throw new Error(`${answer.status} ${await answer.text()}`);
  return answer.status === 204 ? null : answer.json();
}

export const api = {
  projects: () => ask("GET", "/projects"),
  project: (id) => ask("GET", `/projects/${id}`),
  create: (name) => ask("POST", "/projects", { name }),
  remove: (id) => ask("DELETE", `/projects/${id}`),
  add: (id, title) => ask("POST", `/projects/${id}/tasks`, { title }),
  tick: (id, done) => ask("PATCH", `/tasks/${id}`, { done }),
  drop: (id) => ask("DELETE", `/tasks/${id}`),
};
