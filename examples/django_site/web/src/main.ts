import "./style.css";
import { age, matches, type Article } from "./articles";

async function fetchJson<T>(path: string): Promise<T> {
  const answer = await fetch(path);
  if (!answer.ok) throw new Error(`${path}: HTTP ${answer.status}`);
  return answer.json();
}

function byId<E extends HTMLElement>(id: string): E {
  return document.getElementById(id) as E;
}

function articleItem(article: Article): HTMLElement {
  const item = document.createElement("li");
  const link = Object.assign(document.createElement("a"), { href: article.url, textContent: article.title });
  const summary = Object.assign(document.createElement("p"), { textContent: article.summary });
  const details = Object.assign(document.createElement("small"), {
    textContent: `${age(article, new Date())} · ${article.comments} comments`,
  });
  item.append(link, summary, details);
  return item;
}

const { articles } = await fetchJson<{ articles: Article[] }>("/api/articles");
const search = byId<HTMLInputElement>("search");
const show = () => byId("articles").replaceChildren(...articles.filter(matches(search.value)).map(articleItem));
search.addEventListener("input", show);
show();

const { release, slot } = await fetchJson<{ release: string; slot: string }>("/api/release");
byId<HTMLOutputElement>("release").value = `${release} (${slot})`;
