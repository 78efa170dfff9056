// The queue between api and worker, and the jobs there are. A job carries the id of the request it is for.

import { setTimeout as sleep } from "node:timers/promises";
import { createNodeRedisClient, Queue } from "bullmq";
import { rows } from "./database.js";
import { log, requestId } from "./logs.js";
import * as settings from "./settings.js";

export const QUEUE = "orders";
// BullMQ keeps a queue in several keys; the braces hold them together on a Redis cluster.
export const PREFIX = "{palmonas}";

export function queueOn(client) {
  const queue = new Queue(QUEUE, {
    prefix: PREFIX,
    connection: createNodeRedisClient(client),
    defaultJobOptions: {
      attempts: 10,
      backoff: { type: "exponential", delay: 1_000 },
      removeOnComplete: { age: 3_600, count: 1_000 },
    },
  });
  // The client has said it.
  queue.on("error", () => {});
  return queue;
}

/** Ask for the order's confirmation. The job is named after the order: asking twice never makes two of them wait. */
export const enqueue = (queue, order, request_id = requestId()) =>
  queue.add("confirm", { order, request_id }, { jobId: `order-${order}` });

/** Confirm the order, once, however often it is asked for: what is sold is counted in the statement that confirms. */
export async function confirm({ order }) {
  await rows("UPDATE orders SET attempts = attempts + 1 WHERE id = $1", order);
  await sleep(settings.packing);
  const counted = await rows(
    `WITH confirmed AS (
       UPDATE orders SET confirmed_at = now() WHERE id = $1 AND confirmed_at IS NULL RETURNING product, quantity
     )
     UPDATE products SET sold = sold + quantity FROM confirmed WHERE id = product RETURNING sold`,
    order,
  );
  log.info({ order, counted: counted.length }, "confirmed");
}

/** Ask again for orders that nobody is going to confirm: the api or the cache died between the order and its job. */
export async function sweep(_, queue) {
  const forgotten = await rows(
    `SELECT id FROM orders
     WHERE confirmed_at IS NULL AND attempts = 0 AND placed_at < now() - interval '60 seconds' ORDER BY id LIMIT 1000`,
  );
  for (const { id } of forgotten) await enqueue(queue, id);
  if (forgotten.length) log.warn({ found: forgotten.length }, "swept");
}
