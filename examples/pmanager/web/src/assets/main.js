// Show the page of the current address. For every unknown path the server sends index.html, so users can open any address directly.
import { project, projects } from "./pages.js";

const routes = [
  [/^\/$/, projects],
  [/^\/projects\/(\d+)$/, project],
];

async function show() {
  const page = document.getElementById("page");
  for (const [pattern, render] of routes) {
    const match = location.pathname.match(pattern);
    if (match) {
      try {
        page.replaceChildren(...(await render(show, ...match.slice(1))));
      } catch (error) {
        page.textContent = `The page can't be shown: ${error.message}`;
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
