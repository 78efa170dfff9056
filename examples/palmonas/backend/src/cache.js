import { createClient } from "redis";
import { log } from "./logs.js";
import * as settings from "./settings.js";

/** A connection that makes itself anew. With `patient: false` what is asked meanwhile fails at once, instead of waiting. */
export async function connect({ patient }) {
  const client = createClient({ ...settings.cache(), disableOfflineQueue: !patient });
  client.on("error", (error) => log.warn({ error }, "the cache is away"));
  await client.connect();
  return client;
}
