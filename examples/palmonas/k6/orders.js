// k6 script of a load test. Customers stay logged in, place orders at a constant rate, and list their orders.
// Variables: URL, RATE (orders a second) and DURATION. At the end every order must be confirmed exactly once.

import { check, fail, sleep } from "k6";
import http from "k6/http";

const rate = Number(__ENV.RATE || 20);

export const options = {
  scenarios: {
    orders: {
      executor: "constant-arrival-rate",
      rate,
      duration: __ENV.DURATION || "60s",
      preAllocatedVUs: rate,
    },
  },
  thresholds: {
    http_req_failed: ["rate<0.001"],
    "http_req_duration{name:order}": ["p(95)<300"],
    "http_req_duration{name:list}": ["p(95)<300"],
    // k6 must start almost all iterations in time.
    dropped_iterations: ["count<10"],
    checks: ["rate==1"],
  },
  noCookiesReset: true,
  teardownTimeout: "120s",
  hosts: { "*.localhost": "127.0.0.1" },
  insecureSkipTLSVerify: /^https:\/\/[^/:]+\.localhost(:|$)/.test(__ENV.URL),
};

const post = (path, content, name) =>
  http.post(__ENV.URL + path, JSON.stringify(content), { headers: { "Content-Type": "application/json" }, tags: { name } });
const ledger = () => http.get(`${__ENV.URL}/api/ledger`).json();

export function setup() {
  return { products: http.get(`${__ENV.URL}/api/products`).json().map(({ id }) => id) };
}

export default function ({ products }) {
  if (__ITER === 0) check(post("/api/session", { customer: `load ${__VU}` }, "session"), { "the customer can log in": ({ status }) => status === 201 });
  const product = products[(__VU + __ITER) % products.length];
  check(post("/api/orders", { product, quantity: 1 }, "order"), { "the order is accepted": ({ status }) => status === 201 });
  if (__ITER % 5 === 0) {
    const orders = http.get(`${__ENV.URL}/api/orders`, { tags: { name: "list" } });
    check(orders, { "the orders are listed": (answer) => answer.status === 200 && answer.json().length > 0 });
  }
}

export function teardown() {
  let sums = ledger();
  for (let tries = 0; tries < 100 && sums.open; tries++) {
    sleep(1);
    sums = ledger();
  }
  if (sums.open || sums.sold !== sums.confirmed) fail(`not every order is confirmed exactly once: ${JSON.stringify(sums)}`);
}
