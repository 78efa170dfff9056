import { AsyncLocalStorage } from "node:async_hooks";
import { randomUUID } from "node:crypto";
import { subscribe } from "node:diagnostics_channel";
import type { IncomingMessage, ServerResponse } from "node:http";
import { stripVTControlCharacters as plain, format } from "node:util";

import { log } from "./logs";

const { RELEASE = "unreleased" } = process.env;
const current = new AsyncLocalStorage<{ request_id: string }>();

/**
 * Give every request an id, log every request, and close the connections after SIGTERM.
 *
 * Node's diagnostics channels report the requests, so Next's own server needs no replacement.
 */
export function observe() {
  const unanswered = new Set<ServerResponse>();
  let stopping = false;

  subscribe("http.server.request.start", (event) => {
    const { request, response } = event as { request: IncomingMessage; response: ServerResponse };
    const { method, url } = request;
    const sentId = request.headers["x-request-id"];
    const id = { request_id: typeof sentId === "string" ? sentId.slice(0, 100) : randomUUID() };
    const started = performance.now();
    current.enterWith(id);
    request.headers["x-request-id"] = id.request_id;
    response.setHeader("X-Request-Id", id.request_id);
    response.setHeader("X-Release", RELEASE);
    unanswered.add(response);
    if (stopping) response.shouldKeepAlive = false;
    response.once("close", () => {
      unanswered.delete(response);
      // Close the connection, because Next waits for all open connections, including idle ones.
      if (stopping) request.socket.end();
      if (url === "/health.txt") return;
      const seconds = Math.round(performance.now() - started) / 1000;
      log("info", "request", { ...id, method, path: url?.split("?")[0], status: response.statusCode, seconds });
    });
  });

  process.once("SIGTERM", () => {
    stopping = true;
    for (const response of unanswered) response.shouldKeepAlive = false;
  });

  for (const level of ["info", "warn", "error"] as const) {
    console[level] = (...words: unknown[]) => log(level, plain(format(...words)).trim(), current.getStore());
  }
  console.log = console.info;
}
