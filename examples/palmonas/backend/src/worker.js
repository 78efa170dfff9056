// Process of the worker, which runs several jobs at a time. On SIGTERM it finishes its current jobs and takes no other jobs.

import { utimes, writeFile } from "node:fs/promises";
import { createNodeRedisClient, MetricsTime, Worker } from "bullmq";
import { connect } from "./cache.js";
import { pool } from "./database.js";
import { confirm, createQueue, PREFIX, QUEUE, sweep } from "./jobs.js";
import { log, withContext } from "./logs.js";
import * as settings from "./settings.js";

const ALIVE = "/tmp/alive";
const HANDLERS = { confirm, sweep };

const client = await connect({ queueOffline: true });
const queue = createQueue(client);
// The scheduler adds one sweep at a time, although every worker registers it. A failed sweep is removed, because another follows soon.
const sweepOptions = { attempts: 1, removeOnFail: true, removeOnComplete: true };
await queue.upsertJobScheduler("sweep", { every: 30_000 }, { name: "sweep", opts: sweepOptions });

const perform = (job) =>
  withContext({ request_id: job.data.request_id, job: job.id }, () => {
    const handler = HANDLERS[job.name];
    if (!handler) throw new Error(`${job.name}: this release does not have this job`);
    return handler(job.data, queue);
  });

const worker = new Worker(QUEUE, perform, {
  prefix: PREFIX,
  connection: createNodeRedisClient(client),
  concurrency: settings.concurrency,
  metrics: { maxDataPoints: MetricsTime.ONE_HOUR },
  // Maximum number of times that a job is started again after its worker died.
  maxStalledCount: 10,
});
const jobFields = (job) => ({ request_id: job?.data.request_id, job: job?.id, attempt: job?.attemptsMade });
worker.on("failed", (job, error) => log.error({ ...jobFields(job), error }, "a job failed"));
worker.on("stalled", (job) => log.warn({ job }, "a job starts again, because its worker is lost"));
worker.on("error", (error) => log.warn({ error }, "the worker can't take jobs"));
log.info({ concurrency: settings.concurrency }, "waiting for jobs");

await writeFile(ALIVE, "");
const alive = setInterval(async () => {
  if (await client.ping().catch(() => false)) await utimes(ALIVE, new Date(), new Date());
}, 5_000);

for (const signal of ["SIGTERM", "SIGINT"]) {
  process.once(signal, async () => {
    log.info("stopping: finishing current jobs");
    clearInterval(alive);
    await worker.close();
    await queue.close();
    await pool.end();
    if (client.isOpen) client.destroy();
    log.info("stopped");
  });
}
