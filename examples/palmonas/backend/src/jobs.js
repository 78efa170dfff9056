// Queue between api and worker, and its jobs. Each job carries the id of the request that enqueued the job.

import { setTimeout as sleep } from "node:timers/promises";
import { createNodeRedisClient, Queue } from "bullmq";
import { rows } from "./database.js";
import { log, requestId } from "./logs.js";
import * as settings from "./settings.js";

export const QUEUE = "orders";
// BullMQ stores a queue in several keys. The braces put all keys into the same hash slot of a Redis cluster.
export const PREFIX = "{palmonas}";

export function createQueue(client) {
  const queue = new Queue(QUEUE, {
    prefix: PREFIX,
    connection: createNodeRedisClient(client),
    defaultJobOptions: {
      attempts: 10,
      backoff: { type: "exponential", delay: 1_000 },
      removeOnComplete: { age: 3_600, count: 1_000 },
    },
  });
  // Ignore the queue's errors, because the client already logs them.
  queue.on("error", () => {});
  return queue;
}

/** Enqueue the job that confirms an order. The job's id contains the order's id, so BullMQ ignores a second job for the same order. */
export const enqueue = (queue, order, request_id = requestId()) =>
  queue.add("confirm", { order, request_id }, { jobId: `order-${order}` });

/** Confirm an order. The same SQL statement counts the sold items, so a job that runs twice counts them only once. */
export async function confirm({ order }) {
  await rows("UPDATE orders SET attempts = attempts + 1 WHERE id = $1", order);
  await sleep(settings.packingTime);
  const products = await rows(
    `WITH confirmed AS (
       UPDATE orders SET confirmed_at = now() WHERE id = $1 AND confirmed_at IS NULL RETURNING product, quantity
     )
     UPDATE products SET sold = sold + quantity FROM confirmed WHERE id = product RETURNING sold`,
    order,
  );
  log.info({ order, counted: products.length }, "confirmed");
}

/** Enqueue the lost jobs of orders again. A job is lost if the api or the cache stopped between the commit of the order and the job. */
export async function sweep(_, queue) {
  const orders = await rows(
    `SELECT id FROM orders
     WHERE confirmed_at IS NULL AND attempts = 0 AND placed_at < now() - interval '60 seconds' ORDER BY id LIMIT 1000`,
  );
  for (const { id } of orders) await enqueue(queue, id);
  if (orders.length) log.warn({ found: orders.length }, "swept");
}
