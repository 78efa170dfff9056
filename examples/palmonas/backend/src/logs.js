// One JSON object a line, with what the request or the job at hand is known by.

import { AsyncLocalStorage } from "node:async_hooks";
import pino from "pino";
import * as settings from "./settings.js";

const context = new AsyncLocalStorage();

/** All that is logged by `work`, and by what it calls, has these fields. */
export const within = (fields, work) => context.run(fields, work);
/** The same for a listener: it logs with the fields of where it was made. */
export const bound = (listener) => AsyncLocalStorage.bind(listener);
export const requestId = () => context.getStore()?.request_id;

export const log = pino({
  level: settings.logLevel,
  base: settings.running,
  messageKey: "message",
  errorKey: "error",
  timestamp: () => `,"time":"${new Date().toISOString()}"`,
  formatters: { level: (level) => ({ level }) },
  mixin: () => context.getStore() ?? {},
});

process.on("uncaughtException", (error) => {
  log.fatal({ error }, "ends, for nothing was ready for this");
  process.exit(1);
});
