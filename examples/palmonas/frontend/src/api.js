/** Send a request to the api, and return its JSON. If the api refuses the request, throw an error with its message and status. */
export async function request(method, path, content) {
  const json = content && { headers: { "Content-Type": "application/json" }, body: JSON.stringify(content) };
  const answer = await fetch(path, { method, ...json });
  const result = answer.status === 204 ? null : await answer.json();
  if (!answer.ok) throw Object.assign(new Error(result.error), { status: answer.status });
  return result;
}
