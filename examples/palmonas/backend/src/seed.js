// Insert a few orders for development. The program fills only an empty table, so a second run changes nothing.

import { connect } from "./cache.js";
import { pool, rows } from "./database.js";
import { createQueue, enqueue } from "./jobs.js";
import { log } from "./logs.js";

const orders = await rows(
  `INSERT INTO orders (customer, product, quantity)
   SELECT customer, products.id, quantity
   FROM (VALUES ('Ada', 'Kentia palm', 2), ('Ada', 'Parlour palm', 5), ('Grace', 'Date palm', 1)) AS samples (customer, name, quantity)
   JOIN products USING (name) WHERE NOT EXISTS (SELECT FROM orders) RETURNING orders.id`,
);
const client = await connect({ queueOffline: true });
const queue = createQueue(client);
for (const { id } of orders) await enqueue(queue, id, "seed");
log.info({ orders: orders.length }, "seeded");
await queue.close();
await pool.end();
if (client.isOpen) client.destroy();
