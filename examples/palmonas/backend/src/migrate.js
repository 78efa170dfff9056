// Apply the migrations of this release. With --check, apply nothing, and exit with 0 if no migration is missing, otherwise with 1.

import { runner } from "node-pg-migrate";
import { log } from "./logs.js";
import * as settings from "./settings.js";

const check = process.argv.includes("--check");
const missing = await runner({
  databaseUrl: settings.database(),
  dir: new URL("../migrations", import.meta.url).pathname,
  migrationsTable: "migrations",
  direction: "up",
  dryRun: check,
  logger: { debug() {}, info() {}, warn: (text) => log.warn(text), error: (text) => log.error(text) },
});
const names = missing.map(({ name }) => name);
log.info({ [check ? "missing" : "applied"]: names }, check ? "checked" : "migrated");
process.exitCode = check && names.length ? 1 : 0;
