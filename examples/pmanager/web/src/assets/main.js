// Which page an address is. The server answers every unknown path with this program, so that an address can be opened, too.
import { project, projects } from "./pages.js";

const routes = [
  [/^\/$/, projects],
  [/^\/projects\/(\d+)$/, project],
];

async function show() {
  const page = document.getElementById("page");
  for (const [pattern, shown] of routes) {
    const match = location.pathname.match(pattern);
    if (match) {
      try {
        page.replaceChildren(...(await shown(show, ...match.slice(1))));
      } catch (error) {
        page.textContent = `It could not be shown: ${error.message}`;
      }
      return;
    }
  }
  page.textContent = "There is no such page.";
}

document.addEventListener("click", (event) => {
  const link = event.target.closest("a[href^='/']");
  if (!link || event.metaKey || event.ctrlKey) return;
  event.preventDefault();
  history.pushState(null, "", link.href);
  show();
});
addEventListener("popstate", show);
show();
