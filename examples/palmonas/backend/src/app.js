// The HTTP interface.

import { randomUUID } from "node:crypto";
import { RedisStore } from "connect-redis";
import express from "express";
import session from "express-session";
import { pool, rows } from "./database.js";
import { enqueue } from "./jobs.js";
import { bound, log, requestId, within } from "./logs.js";
import * as metrics from "./metrics.js";
import * as settings from "./settings.js";

const QUIET = ["/health", "/ready", "/metrics"];
const WEEK = 7 * 24 * 60 * 60 * 1000;

/** A request id, a log line and the metrics of every request. */
function observe(request, response, next) {
  const started = performance.now();
  const given = request.get("X-Request-Id");
  const request_id = given && /^[\x21-\x7e]{1,100}$/.test(given) ? given : randomUUID();
  response.set({ "X-Request-Id": request_id, "X-Release": settings.running.release });
  const done = () => {
    const seconds = (performance.now() - started) / 1000;
    const route = request.route ? request.route.path : "unknown";
    const { method } = request;
    // As the nginx beside it says it, when the client has gone before its answer.
    const status = response.writableFinished ? response.statusCode : 499;
    metrics.latency.observe({ method, route, status }, seconds);
    if (status >= 500) metrics.errors.inc({ method, route });
    if (!QUIET.includes(route)) {
      log.info({ method, path: request.path, status, seconds: Number(seconds.toFixed(4)) }, "request");
    }
  };
  within({ request_id }, () => {
    response.on("close", bound(done));
    next();
  });
}

/** Who asks is known by a cookie; what is known of them is in the cache, for both slots to find. */
const sessions = (cache) =>
  session({
    name: "palmonas",
    secret: settings.sessionSecrets(),
    store: new RedisStore({ client: cache, prefix: "palmonas:session:" }),
    cookie: { httpOnly: true, sameSite: "lax", secure: "auto", maxAge: WEEK },
    resave: false,
    saveUninitialized: false,
  });

const refuse = (response, status, error) => response.status(status).json({ error });

function known(request, response, next) {
  if (!request.session.customer) return refuse(response, 401, "log in first");
  next();
}

/** Resolves when the session's method has called back. */
const settled = (request, method) =>
  new Promise((resolve, reject) => request.session[method]((error) => (error ? reject(error) : resolve())));

const orderable = (value) => Number.isInteger(value) && value >= 1 && value <= 100;
const ORDERS = `SELECT orders.id, products.name AS product, quantity, placed_at, confirmed_at, attempts
                FROM orders JOIN products ON products.id = product WHERE customer = $1`;

export function application({ cache, queue, stopping }) {
  metrics.watch(queue);
  const app = express();
  app.disable("x-powered-by");
  // Only the gateway can reach it.
  app.set("trust proxy", 1);
  app.use(observe, express.json({ limit: "10kb" }));

  app.get("/health", (request, response) => response.json({ status: "ok", ...settings.running }));

  app.get("/ready", async (request, response) => {
    const asked = { database: pool.query("SELECT 1"), cache: cache.ping() };
    const states = await Promise.allSettled(Object.values(asked));
    const told = Object.keys(asked).map((name, n) => [name, states[n].reason?.message ?? "ok"]);
    const ready = !stopping() && states.every(({ status }) => status === "fulfilled");
    response.status(ready ? 200 : 503).json({ ...Object.fromEntries(told), ...settings.running });
  });

  app.get("/metrics", async (request, response) => {
    const { type, text } = await metrics.page();
    response.type(type).send(text);
  });

  app.get("/api/release", (request, response) => response.json(settings.running));

  app.get("/api/products", async (request, response) => {
    response.json(await rows("SELECT id, name, cents, sold FROM products ORDER BY name"));
  });

  /** Exact sums of one instant, for tests: what is sold is what is confirmed, however often a job ran. */
  app.get("/api/ledger", async (request, response) => {
    const [sums] = await rows(
      `SELECT count(*)::int AS orders, count(*) FILTER (WHERE confirmed_at IS NULL)::int AS open,
              coalesce(sum(quantity) FILTER (WHERE confirmed_at IS NOT NULL), 0)::int AS confirmed,
              (SELECT sum(sold)::int FROM products) AS sold, coalesce(max(attempts), 0) AS most_attempts FROM orders`,
    );
    response.json(sums);
  });

  app.use(["/api/session", "/api/orders"], sessions(cache));

  app.get("/api/session", known, (request, response) => response.json({ customer: request.session.customer }));

  app.post("/api/session", async (request, response) => {
    const customer = request.body?.customer?.trim?.();
    if (!customer || customer.length > 80) return refuse(response, 400, "customer: a name of at most 80 letters");
    // A session from before is nobody's way into this one.
    await settled(request, "regenerate");
    request.session.customer = customer;
    await settled(request, "save");
    response.status(201).json({ customer });
  });

  app.delete("/api/session", async (request, response) => {
    await settled(request, "destroy");
    response.clearCookie("palmonas").status(204).end();
  });

  app.get("/api/orders", known, async (request, response) => {
    response.json(await rows(`${ORDERS} ORDER BY orders.id DESC LIMIT 50`, request.session.customer));
  });

  app.get("/api/orders/:id", known, async (request, response) => {
    const [order] = await rows(`${ORDERS} AND orders.id::text = $2`, request.session.customer, request.params.id);
    if (!order) return refuse(response, 404, "there is no such order of yours");
    response.json(order);
  });

  /** Answers once the order is committed. Its job is asked for after that; if the queue is away, the worker's sweep asks. */
  app.post("/api/orders", known, async (request, response) => {
    const { product, quantity } = request.body ?? {};
    if (!orderable(quantity)) return refuse(response, 400, "quantity: a whole number from 1 to 100");
    const [order] = await rows(
      `INSERT INTO orders (customer, product, quantity) SELECT $1, id, $3 FROM products WHERE id::text = $2
       RETURNING id, quantity, placed_at, confirmed_at`,
      request.session.customer,
      String(product),
      quantity,
    );
    if (!order) return refuse(response, 404, "product: there is no such product");
    metrics.placed.inc();
    log.info({ order: order.id }, "placed");
    await enqueue(queue, order.id).catch((error) => log.warn({ error }, "the queue is away; the sweep will ask again"));
    response.status(201).json(order);
  });

  app.use((request, response) => refuse(response, 404, "there is no such path"));

  app.use((error, request, response, next) => {
    if (response.headersSent) return next(error);
    const status = error.status ?? 500;
    if (status >= 500) log.error({ error }, "a request failed");
    refuse(response, status, status < 500 ? error.message : `it failed; this request is ${requestId()}`);
  });
  return app;
}
