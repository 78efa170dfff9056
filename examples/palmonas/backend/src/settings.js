// Settings from environment variables. Secrets come from files whose paths are in the variables.

import { readFileSync } from "node:fs";

const env = process.env;
const secret = (name) => readFileSync(env[`${name}_FILE`], "utf8").trim();

export const releaseInfo = { release: env.RELEASE ?? "unreleased", slot: env.SLOT ?? "none" };
export const logLevel = env.LOG_LEVEL ?? "info";
export const port = 4000;

/** Milliseconds that a confirmation takes. This simulates the warehouse and the payment of a real shop. */
export const packingTime = Number(env.PACKING_SECONDS ?? 0.2) * 1000;
export const concurrency = Number(env.CONCURRENCY ?? 8);

export const database = () => ({
  host: env.DATABASE_HOST,
  port: Number(env.DATABASE_PORT),
  database: env.DATABASE_NAME,
  user: env.DATABASE_USER,
  password: secret("DATABASE_PASSWORD"),
  application_name: `palmonas-${releaseInfo.slot}`,
});

export const cache = () => ({
  socket: { host: env.CACHE_HOST, port: Number(env.CACHE_PORT), connectTimeout: 5_000 },
  password: secret("CACHE_PASSWORD"),
  pingInterval: 15_000,
});

/**
 * Return the secrets of the sessions, one for each line of the file.
 *
 * The first secret signs new sessions, and the others remain valid. So users stay logged in when the secret changes.
 */
export const sessionSecrets = () => secret("SESSION_SECRET").split("\n");
