// Prometheus metrics of the application, its queue and its database connections.

import client from "prom-client";
import { pool } from "./database.js";
import * as settings from "./settings.js";

client.collectDefaultMetrics();

export const latency = new client.Histogram({
  name: "http_request_duration_seconds",
  help: "Seconds from request to the end of the response.",
  labelNames: ["method", "route", "status"],
  buckets: [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10],
});
export const errors = new client.Counter({
  name: "http_request_errors_total",
  help: "Responses with status 5xx.",
  labelNames: ["method", "route"],
});
export const ordersPlaced = new client.Counter({ name: "palmonas_orders_placed_total", help: "Orders committed." });

const gauge = (name, help, labelNames, collect) => new client.Gauge({ name, help, labelNames, collect });

gauge("palmonas_release_info", "Release and slot of this process.", ["release", "slot"], function () {
  this.set(settings.releaseInfo, 1);
});
gauge("palmonas_database_connections", "Connections of the pool: used, idle, and requests that wait for a connection (awaited).", ["state"], function () {
  this.set({ state: "used" }, pool.totalCount - pool.idleCount);
  this.set({ state: "idle" }, pool.idleCount);
  this.set({ state: "awaited" }, pool.waitingCount);
});

/** Add the metrics of the queue. All replicas of both slots share the queue, so all of them export the same values. */
export function observeQueue(queue) {
  gauge("palmonas_jobs", "Jobs by state.", ["state"], async function () {
    const counts = await queue.getJobCounts("waiting", "active", "delayed", "failed");
    for (const [state, count] of Object.entries(counts)) this.set({ state }, count);
  });
  gauge("palmonas_jobs_oldest_seconds", "Seconds that the oldest job has waited.", [], async function () {
    const [oldest] = await queue.getJobs(["waiting"], 0, 0, true);
    this.set(oldest ? (Date.now() - oldest.timestamp) / 1000 : 0);
  });
  gauge("palmonas_jobs_done", "Jobs that workers have finished since the queue exists, by result.", ["state"], async function () {
    for (const state of ["completed", "failed"]) {
      this.set({ state }, Number((await queue.getMetrics(state, 0, 0)).meta.count));
    }
  });
}

export const page = async () => ({ type: client.register.contentType, text: await client.register.metrics() });
