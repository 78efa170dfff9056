import "./style.css";
import { age, matches, type Article } from "./articles";

async function ask<T>(path: string): Promise<T> {
  const answer = await fetch(path);
  if (!answer.ok) throw new Error(`${path}: HTTP ${answer.status}`);
  return answer.json();
}

function by<E extends HTMLElement>(id: string): E {
  return document.getElementById(id) as E;
}

function shown(article: Article): HTMLElement {
  const item = document.createElement("li");
  const link = Object.assign(document.createElement("a"), { href: article.url, textContent: article.title });
  const summary = Object.assign(document.createElement("p"), { textContent: article.summary });
  const about = Object.assign(document.createElement("small"), {
    textContent: `${age(article, new Date())} · ${article.comments} comments`,
  });
  item.append(link, summary, about);
  return item;
}

const { articles } = await ask<{ articles: Article[] }>("/api/articles");
const search = by<HTMLInputElement>("search");
const show = () => by("articles").replaceChildren(...articles.filter(matches(search.value)).map(shown));
search.addEventListener("input", show);
show();

const { release, slot } = await ask<{ release: string; slot: string }>("/api/release");
by<HTMLOutputElement>("release").value = `${release} (${slot})`;
