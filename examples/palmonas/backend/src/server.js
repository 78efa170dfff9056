// The api's process. SIGTERM: no new connections, requests in hand are answered, and each answer ends its connection.

import { createServer } from "node:http";
import { application } from "./app.js";
import { connect } from "./cache.js";
import { pool } from "./database.js";
import { queueOn } from "./jobs.js";
import { log } from "./logs.js";
import * as settings from "./settings.js";

let stopping = false;
const open = new Set();

const cache = await connect({ patient: false });
const queue = queueOn(cache);

const server = createServer();
// Longer than any gateway keeps an idle connection: it must never send a request into one that is being closed here.
server.keepAliveTimeout = 90_000;
server.on("request", (request, response) => {
  if (stopping) response.setHeader("Connection", "close");
  open.add(response);
  response.on("close", () => open.delete(response));
});
server.on("request", application({ cache, queue, stopping: () => stopping }));
server.listen(settings.port, () => log.info({ port: settings.port }, "listens"));

for (const signal of ["SIGTERM", "SIGINT"]) {
  process.once(signal, async () => {
    stopping = true;
    log.info({ requests: open.size }, "finishes what it holds");
    for (const response of open) if (!response.headersSent) response.setHeader("Connection", "close");
    await new Promise((closed) => server.close(closed));
    await queue.close();
    await pool.end();
    if (cache.isOpen) cache.destroy();
    log.info("stopped");
  });
}
