/** What the api answers; an error has what it says is wrong. */
export async function ask(method, path, content) {
  const json = content && { headers: { "Content-Type": "application/json" }, body: JSON.stringify(content) };
  const answer = await fetch(path, { method, ...json });
  const told = answer.status === 204 ? null : await answer.json();
  if (!answer.ok) throw Object.assign(new Error(told.error), { status: answer.status });
  return told;
}
