// Process of the api. On SIGTERM it accepts no new connections, finishes open requests, and closes each connection after its response.

import { createServer } from "node:http";
import { application } from "./app.js";
import { connect } from "./cache.js";
import { pool } from "./database.js";
import { createQueue } from "./jobs.js";
import { log } from "./logs.js";
import * as settings from "./settings.js";

let stopping = false;
const open = new Set();

const cache = await connect({ queueOffline: false });
const queue = createQueue(cache);

const server = createServer();
// Keep idle connections open for longer than any gateway does. Otherwise the gateway could send a request to a connection that
// is being closed here.
server.keepAliveTimeout = 90_000;
server.on("request", (request, response) => {
  if (stopping) response.setHeader("Connection", "close");
  open.add(response);
  response.on("close", () => open.delete(response));
});
server.on("request", application({ cache, queue, stopping: () => stopping }));
server.listen(settings.port, () => log.info({ port: settings.port }, "listening"));

for (const signal of ["SIGTERM", "SIGINT"]) {
  process.once(signal, async () => {
    stopping = true;
    log.info({ requests: open.size }, "stopping: finishing open requests");
    for (const response of open) if (!response.headersSent) response.setHeader("Connection", "close");
    await new Promise((closed) => server.close(closed));
    await queue.close();
    await pool.end();
    if (cache.isOpen) cache.destroy();
    log.info("stopped");
  });
}
