// Write each log line as a JSON object, with the fields of its request or job.

import { AsyncLocalStorage } from "node:async_hooks";
import pino from "pino";
import * as settings from "./settings.js";

const context = new AsyncLocalStorage();

/** Run `work`. All its log lines, including those of functions that it calls, get these fields. */
export const withContext = (fields, work) => context.run(fields, work);
/** Return a listener whose log lines get the fields of the current context. */
export const bindContext = (listener) => AsyncLocalStorage.bind(listener);
export const requestId = () => context.getStore()?.request_id;

export const log = pino({
  level: settings.logLevel,
  base: settings.releaseInfo,
  messageKey: "message",
  errorKey: "error",
  timestamp: () => `,"time":"${new Date().toISOString()}"`,
  formatters: { level: (level) => ({ level }) },
  mixin: () => context.getStore() ?? {},
});

process.on("uncaughtException", (error) => {
  log.fatal({ error }, "ending after an uncaught exception");
  process.exit(1);
});
