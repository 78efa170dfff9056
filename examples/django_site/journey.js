// k6 script of `make journey`. A user opens the landing page with its bundle and an article with its style sheet, and writes a comment,
// which must be on the page afterwards. The variable URL has the address. Every check must pass.

import { check, fail } from "k6";
import http from "k6/http";

export const options = {
  thresholds: { checks: ["rate==1"], http_req_failed: ["rate==0"] },
  // k6 does not resolve names below .localhost by itself. The lab itself issues the certificate of its gateway.
  hosts: { "*.localhost": "127.0.0.1" },
  insecureSkipTLSVerify: /^https:\/\/[^/:]+\.localhost(:|$)/.test(__ENV.URL),
};

// As a browser asks for a page: the gateway answers with the cookie that keeps what the page asks for on its slot.
const PAGE = { headers: { Accept: "text/html" } };
const get = (path, params) => http.get(__ENV.URL + path, params);

function page(path) {
  const found = get(path, PAGE);
  check(found, { "the page is there": ({ status }) => status === 200 }) || fail(`${path}: HTTP ${found.status} ${found.error}`);
  for (const [, asset] of found.body.matchAll(/(?:src|href)="(\/(?:assets|static|api\/static|main)[^"]+)"/g)) {
    check(get(asset), { "its assets are there": ({ status }) => status === 200 });
  }
  return found;
}

export default function () {
  page("/");
  const { articles } = get("/api/articles").json();
  check(articles, { "there is an article": ([first]) => first !== undefined }) || fail("no article");
  const { url, title } = articles[0];
  const article = page(url);
  check(article, { "it is what the landing page calls it": ({ body }) => body.includes(title) });

  const text = `journey ${__VU}-${__ITER} of ${new Date().toISOString()}`;
  const said = article.submitForm({
    formSelector: "#comments form",
    fields: { author: "journey", text },
    // Django takes a form over TLS only from a page of its own, and browsers say which.
    params: { headers: { ...PAGE.headers, Referer: __ENV.URL + url } },
  });
  check(said, { "a comment is taken": ({ status }) => status === 200 }) || fail(`HTTP ${said.status} ${said.body}`);
  check(get(url, PAGE), { "it is on the page": ({ body }) => body.includes(text) });
}
