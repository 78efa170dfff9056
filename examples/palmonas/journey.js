// k6 script of `make journey`. A customer opens a page with its assets, gets a session, and places an order, which the worker processes.
// The variable URL has the address. Every check must pass.

import { check, fail, sleep } from "k6";
import http from "k6/http";

export const options = {
  thresholds: { checks: ["rate==1"] },
  // k6 does not resolve names below .localhost by itself. The lab itself issues the certificate of its gateway.
  hosts: { "*.localhost": "127.0.0.1" },
  insecureSkipTLSVerify: /^https:\/\/[^/:]+\.localhost(:|$)/.test(__ENV.URL),
};

const get = (path) => http.get(__ENV.URL + path);
const post = (path, content) =>
  http.post(__ENV.URL + path, JSON.stringify(content), { headers: { "Content-Type": "application/json" } });

export default function () {
  const page = get("/");
  check(page, { "the page loads": (answer) => answer.status === 200 }) || fail(`/: HTTP ${page.status} ${page.error}`);
  for (const [, asset] of page.body.matchAll(/(?:src|href)="(\/[^"]+)"/g)) {
    check(get(asset), { "its assets load": (answer) => answer.status === 200 });
  }
  const customer = `journey ${__VU}`;
  check(post("/api/session", { customer }), { "the customer can log in": (answer) => answer.status === 201 });
  check(get("/api/session"), { "the session has the customer": (answer) => answer.status === 200 && answer.json("customer") === customer });

  const [product] = get("/api/products").json();
  const response = post("/api/orders", { product: product.id, quantity: 2 });
  check(response, { "the order is accepted": (answer) => answer.status === 201 }) || fail(`HTTP ${response.status} ${response.body}`);
  const id = response.json("id");
  let order;
  for (let tries = 0; tries < 120 && !(order && order.confirmed_at); tries++) {
    sleep(0.5);
    order = get(`/api/orders/${id}`).json();
  }
  check(order, { "the worker has confirmed it, at the first attempt": ({ confirmed_at, attempts }) => confirmed_at && attempts === 1 });
  check(get("/api/orders").json(), { "the order is listed": (orders) => orders.some((entry) => entry.id === id) });
  check(get("/api/ledger").json(), { "the sold items equal the confirmed items": ({ sold, confirmed }) => sold === confirmed });

  check(http.del(`${__ENV.URL}/api/session`), { "the customer can log out": (answer) => answer.status === 204 });
  const anonymous = http.get(`${__ENV.URL}/api/orders`, { responseCallback: http.expectedStatuses(401) });
  check(anonymous, { "orders are refused after logout": (answer) => answer.status === 401 });
}
