// Where things are: from the environment; what is secret, from the files it names.

import { readFileSync } from "node:fs";

const env = process.env;
const secret = (name) => readFileSync(env[`${name}_FILE`], "utf8").trim();

export const running = { release: env.RELEASE ?? "unreleased", slot: env.SLOT ?? "none" };
export const logLevel = env.LOG_LEVEL ?? "info";
export const port = 4000;

/** How long a confirmation takes: what a shop's warehouse and payment would take. */
export const packing = Number(env.PACKING_SECONDS ?? 0.2) * 1000;
export const concurrency = Number(env.CONCURRENCY ?? 8);

export const database = () => ({
  host: env.DATABASE_HOST,
  port: Number(env.DATABASE_PORT),
  database: env.DATABASE_NAME,
  user: env.DATABASE_USER,
  password: secret("DATABASE_PASSWORD"),
  application_name: `palmonas-${running.slot}`,
});

export const cache = () => ({
  socket: { host: env.CACHE_HOST, port: Number(env.CACHE_PORT), connectTimeout: 5_000 },
  password: secret("CACHE_PASSWORD"),
  pingInterval: 15_000,
});

/** One a line: the first signs, the others still count. So it can be changed without logging anybody out. */
export const sessionSecrets = () => secret("SESSION_SECRET").split("\n");
