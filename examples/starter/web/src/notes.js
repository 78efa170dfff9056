const ask = (path, options) => fetch(path, options).then((answer) => answer.json());
const by = (id) => document.getElementById(id);

async function refresh() {
  const notes = await ask("/api/notes");
  by("notes").replaceChildren(...notes.map(({ text }) => Object.assign(document.createElement("li"), { textContent: text })));
}

by("write").addEventListener("submit", async (event) => {
  event.preventDefault();
  const body = JSON.stringify(Object.fromEntries(new FormData(event.target)));
  await ask("/api/notes", { method: "POST", headers: { "Content-Type": "application/json" }, body });
  event.target.reset();
  refresh();
});

ask("/api/release").then(({ release, slot }) => { by("release").value = `${release} (${slot})`; });
refresh();
