const fetchJson = (path, options) => fetch(path, options).then((answer) => answer.json());
const byId = (id) => document.getElementById(id);

async function refresh() {
  const notes = await fetchJson("/api/notes");
  byId("notes").replaceChildren(...notes.map(({ text }) => Object.assign(document.createElement("li"), { textContent: text })));
}

byId("write").addEventListener("submit", async (event) => {
  event.preventDefault();
  const body = JSON.stringify(Object.fromEntries(new FormData(event.target)));
  await fetchJson("/api/notes", { method: "POST", headers: { "Content-Type": "application/json" }, body });
  event.target.reset();
  refresh();
});

fetchJson("/api/release").then(({ release, slot }) => { byId("release").value = `${release} (${slot})`; });
refresh();
