const get = (path, options) => fetch(path, options).then((answer) => answer.json());
const by = (id) => document.getElementById(id);

function shown(message) {
  const item = document.createElement("li");
  const body = document.createElement("p");
  body.textContent = message.body;
  const about = document.createElement("small");
  const summary = message.summary === null ? "no summary yet" : `“${message.summary}”`;
  about.textContent = `${message.author} · ${summary} · processed ${message.processed}×`;
  item.append(body, about);
  return item;
}

async function refresh() {
  const query = by("search").value.trim();
  const messages = await get(query ? `/api/search?q=${encodeURIComponent(query)}` : "/api/messages");
  by("messages").replaceChildren(...messages.map(shown));
}

by("search").addEventListener("input", refresh);
by("post").addEventListener("submit", async (event) => {
  event.preventDefault();
  const body = JSON.stringify(Object.fromEntries(new FormData(event.target)));
  await fetch("/api/messages", { method: "POST", headers: { "Content-Type": "application/json" }, body });
  event.target.reset();
  refresh();
});

const feed = new EventSource("/api/feed");
feed.onopen = () => { by("feed").value = "live"; };
feed.onerror = () => { by("feed").value = "reconnecting"; };
feed.onmessage = refresh;

get("/release.json").then(({ release, slot }) => { by("web").value = `${release} (${slot})`; });
get("/api/release").then(({ release, slot }) => { by("api").value = `${release} (${slot})`; });
refresh();
