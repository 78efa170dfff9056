import { createClient } from "redis";
import { log } from "./logs.js";
import * as settings from "./settings.js";

/**
 * Return a connection to Redis that reconnects by itself.
 *
 * While the connection is lost, commands wait if `queueOffline` is true. Otherwise they fail at once.
 */
export async function connect({ queueOffline }) {
  const client = createClient({ ...settings.cache(), disableOfflineQueue: !queueOffline });
  client.on("error", (error) => log.warn({ error }, "the cache is unavailable"));
  await client.connect();
  return client;
}
