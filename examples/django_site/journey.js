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

// Request pages as a browser does. The gateway then sets a cookie, which keeps all requests of the page on the page's slot.
const PAGE = { headers: { Accept: "text/html" } };
const get = (path, params) => http.get(__ENV.URL + path, params);

function page(path) {
  const response = get(path, PAGE);
  check(response, { "the page loads": ({ status }) => status === 200 }) || fail(`${path}: HTTP ${response.status} ${response.error}`);
  for (const [, asset] of response.body.matchAll(/(?:src|href)="(\/(?:assets|static|api\/static|main)[^"]+)"/g)) {
    check(get(asset), { "its assets load": ({ status }) => status === 200 });
  }
  return response;
}

export default function () {
  page("/");
  const { articles } = get("/api/articles").json();
  check(articles, { "the site has an article": ([first]) => first !== undefined }) || fail("/api/articles: no article");
  const { url, title } = articles[0];
  const article = page(url);
  check(article, { "the article has the title that the api names": ({ body }) => body.includes(title) });

  const text = `journey ${__VU}-${__ITER} of ${new Date().toISOString()}`;
  const response = article.submitForm({
    formSelector: "#comments form",
    fields: { author: "journey", text },
    // Over TLS, Django accepts a form only with the header Referer of its own site. Browsers set this header.
    params: { headers: { ...PAGE.headers, Referer: __ENV.URL + url } },
  });
  check(response, { "the comment is accepted": ({ status }) => status === 200 }) || fail(`HTTP ${response.status} ${response.body}`);
  check(get(url, PAGE), { "the comment is on the page": ({ body }) => body.includes(text) });
}
