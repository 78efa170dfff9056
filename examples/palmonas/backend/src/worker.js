// The worker: takes jobs, a few at a time. SIGTERM: no other is taken, those in hand are finished.

import { utimes, writeFile } from "node:fs/promises";
import { createNodeRedisClient, MetricsTime, Worker } from "bullmq";
import { connect } from "./cache.js";
import { pool } from "./database.js";
import { confirm, PREFIX, QUEUE, queueOn, sweep } from "./jobs.js";
import { log, within } from "./logs.js";
import * as settings from "./settings.js";

const ALIVE = "/tmp/alive";
const WORK = { confirm, sweep };

const client = await connect({ patient: true });
const queue = queueOn(client);
// One of it in the queue, however many workers say so. Nothing of a sweep that fails is kept: the next one comes anyway.
const once = { attempts: 1, removeOnFail: true, removeOnComplete: true };
await queue.upsertJobScheduler("sweep", { every: 30_000 }, { name: "sweep", opts: once });

const perform = (job) =>
  within({ request_id: job.data.request_id, job: job.id }, () => {
    const work = WORK[job.name];
    if (!work) throw new Error(`${job.name} is a job of another release`);
    return work(job.data, queue);
  });

const worker = new Worker(QUEUE, perform, {
  prefix: PREFIX,
  connection: createNodeRedisClient(client),
  concurrency: settings.concurrency,
  metrics: { maxDataPoints: MetricsTime.ONE_HOUR },
  // A job that dies with its worker goes to another one: it may be begun again as often as that takes.
  maxStalledCount: 10,
});
const told = (job) => ({ request_id: job?.data.request_id, job: job?.id, attempt: job?.attemptsMade });
worker.on("failed", (job, error) => log.error({ ...told(job), error }, "a job failed"));
worker.on("stalled", (job) => log.warn({ job }, "a job is begun again: its worker is gone"));
worker.on("error", (error) => log.warn({ error }, "no jobs can be taken"));
log.info({ concurrency: settings.concurrency }, "takes jobs");

await writeFile(ALIVE, "");
const alive = setInterval(async () => {
  if (await client.ping().catch(() => false)) await utimes(ALIVE, new Date(), new Date());
}, 5_000);

for (const signal of ["SIGTERM", "SIGINT"]) {
  process.once(signal, async () => {
    log.info("finishes what it holds");
    clearInterval(alive);
    await worker.close();
    await queue.close();
    await pool.end();
    if (client.isOpen) client.destroy();
    log.info("stopped");
  });
}
