// HTTP interface of the shop.

import { randomUUID } from "node:crypto";
import { RedisStore } from "connect-redis";
import express from "express";
import session from "express-session";
import { pool, rows } from "./database.js";
import { enqueue } from "./jobs.js";
import { bindContext, log, requestId, withContext } from "./logs.js";
import * as metrics from "./metrics.js";
import * as settings from "./settings.js";

const QUIET = ["/health", "/ready", "/metrics"];
const WEEK = 7 * 24 * 60 * 60 * 1000;

/** Give every request an id, measure the request, and log every request except those in QUIET. */
function observe(request, response, next) {
  const started = performance.now();
  const sentId = request.get("X-Request-Id");
  const request_id = sentId && /^[\x21-\x7e]{1,100}$/.test(sentId) ? sentId : randomUUID();
  response.set({ "X-Request-Id": request_id, "X-Release": settings.releaseInfo.release });
  const record = () => {
    const seconds = (performance.now() - started) / 1000;
    const route = request.route ? request.route.path : "unknown";
    const { method } = request;
    // Use nginx's status 499 if the client closes the connection before the response is complete.
    const status = response.writableFinished ? response.statusCode : 499;
    metrics.latency.observe({ method, route, status }, seconds);
    if (status >= 500) metrics.errors.inc({ method, route });
    if (!QUIET.includes(route)) {
      log.info({ method, path: request.path, status, seconds: Number(seconds.toFixed(4)) }, "request");
    }
  };
  withContext({ request_id }, () => {
    response.on("close", bindContext(record));
    next();
  });
}

/** Return the middleware of sessions. A cookie has the session's id, and Redis has its data, which both slots share. */
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

function requireLogin(request, response, next) {
  if (!request.session.customer) return refuse(response, 401, "log in first");
  next();
}

/** Call a method of the session, and return a promise that resolves after the method's callback. */
const callSession = (request, method) =>
  new Promise((resolve, reject) => request.session[method]((error) => (error ? reject(error) : resolve())));

const isValidQuantity = (value) => Number.isInteger(value) && value >= 1 && value <= 100;
const ORDERS = `SELECT orders.id, products.name AS product, quantity, placed_at, confirmed_at, attempts
                FROM orders JOIN products ON products.id = product WHERE customer = $1`;

export function application({ cache, queue, stopping }) {
  metrics.observeQueue(queue);
  const app = express();
  app.disable("x-powered-by");
  // Trust the headers of one proxy, because only the gateway can reach this service.
  app.set("trust proxy", 1);
  app.use(observe, express.json({ limit: "10kb" }));

  app.get("/health", (request, response) => response.json({ status: "ok", ...settings.releaseInfo }));

  app.get("/ready", async (request, response) => {
    const checks = { database: pool.query("SELECT 1"), cache: cache.ping() };
    const states = await Promise.allSettled(Object.values(checks));
    const results = Object.keys(checks).map((name, n) => [name, states[n].reason?.message ?? "ok"]);
    const ready = !stopping() && states.every(({ status }) => status === "fulfilled");
    response.status(ready ? 200 : 503).json({ ...Object.fromEntries(results), ...settings.releaseInfo });
  });

  app.get("/metrics", async (request, response) => {
    const { type, text } = await metrics.page();
    response.type(type).send(text);
  });

  app.get("/api/release", (request, response) => response.json(settings.releaseInfo));

  app.get("/api/products", async (request, response) => {
    response.json(await rows("SELECT id, name, cents, sold FROM products ORDER BY name"));
  });

  /** Return exact sums of one point in time, for tests. The sold items must equal the confirmed items, even if a job ran twice. */
  app.get("/api/ledger", async (request, response) => {
    const [sums] = await rows(
      `SELECT count(*)::int AS orders, count(*) FILTER (WHERE confirmed_at IS NULL)::int AS open,
              coalesce(sum(quantity) FILTER (WHERE confirmed_at IS NOT NULL), 0)::int AS confirmed,
              (SELECT sum(sold)::int FROM products) AS sold, coalesce(max(attempts), 0) AS most_attempts FROM orders`,
    );
    response.json(sums);
  });

  app.use(["/api/session", "/api/orders"], sessions(cache));

  app.get("/api/session", requireLogin, (request, response) => response.json({ customer: request.session.customer }));

  app.post("/api/session", async (request, response) => {
    const customer = request.body?.customer?.trim?.();
    if (!customer || customer.length > 80) return refuse(response, 400, "customer: must be a name of 1 to 80 characters");
    // Change the session's id at each login, so that an older id gives no access.
    await callSession(request, "regenerate");
    request.session.customer = customer;
    await callSession(request, "save");
    response.status(201).json({ customer });
  });

  app.delete("/api/session", async (request, response) => {
    await callSession(request, "destroy");
    response.clearCookie("palmonas").status(204).end();
  });

  app.get("/api/orders", requireLogin, async (request, response) => {
    response.json(await rows(`${ORDERS} ORDER BY orders.id DESC LIMIT 50`, request.session.customer));
  });

  app.get("/api/orders/:id", requireLogin, async (request, response) => {
    const [order] = await rows(`${ORDERS} AND orders.id::text = $2`, request.session.customer, request.params.id);
    if (!order) return refuse(response, 404, "you have no such order");
    response.json(order);
  });

  /**
   * Commit an order, then enqueue its job.
   *
   * If the queue is unavailable, the request still succeeds, and the worker's `sweep` enqueues the job later.
   */
  app.post("/api/orders", requireLogin, async (request, response) => {
    const { product, quantity } = request.body ?? {};
    if (!isValidQuantity(quantity)) return refuse(response, 400, "quantity: must be a whole number from 1 to 100");
    const [order] = await rows(
      `INSERT INTO orders (customer, product, quantity) SELECT $1, id, $3 FROM products WHERE id::text = $2
       RETURNING id, quantity, placed_at, confirmed_at`,
      request.session.customer,
      String(product),
      quantity,
    );
    if (!order) return refuse(response, 404, "product: there is no such product");
    metrics.ordersPlaced.inc();
    log.info({ order: order.id }, "placed");
    await enqueue(queue, order.id).catch((error) => log.warn({ error }, "the queue is unavailable; the worker will enqueue the job later"));
    response.status(201).json(order);
  });

  app.use((request, response) => refuse(response, 404, "there is no such path"));

  app.use((error, request, response, next) => {
    if (response.headersSent) return next(error);
    const status = error.status ?? 500;
    if (status >= 500) log.error({ error }, "a request failed");
    refuse(response, status, status < 500 ? error.message : `internal error; the request id is ${requestId()}`);
  });
  return app;
}
