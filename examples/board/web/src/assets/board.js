const get = (path, options) => fetch(path, options).then((answer) => answer.json());
const byId = (id) => document.getElementById(id);

function messageItem(message) {
  const item = document.createElement("li");
  const body = document.createElement("p");
  body.textContent = message.body;
  const details = document.createElement("small");
  const summary = message.summary === null ? "no summary yet" : `“${message.summary}”`;
  details.textContent = `${message.author} · ${summary} · processed ${message.processed}×`;
  item.append(body, details);
  return item;
}

async function refresh() {
  const query = byId("search").value.trim();
  const messages = await get(query ? `/api/search?q=${encodeURIComponent(query)}` : "/api/messages");
  byId("messages").replaceChildren(...messages.map(messageItem));
}

byId("search").addEventListener("input", refresh);
byId("post").addEventListener("submit", async (event) => {
  event.preventDefault();
  const body = JSON.stringify(Object.fromEntries(new FormData(event.target)));
  await fetch("/api/messages", { method: "POST", headers: { "Content-Type": "application/json" }, body });
  event.target.reset();
  refresh();
});

const feed = new EventSource("/api/feed");
feed.onopen = () => { byId("feed").value = "live"; };
feed.onerror = () => { byId("feed").value = "reconnecting"; };
feed.onmessage = refresh;

get("/release.json").then(({ release, slot }) => { byId("web").value = `${release} (${slot})`; });
get("/api/release").then(({ release, slot }) => { byId("api").value = `${release} (${slot})`; });
refresh();
