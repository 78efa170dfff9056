// Run a program of src for development, and restart it after each change in src: `node watch.js src/server.js`.
// To stop the program, send SIGTERM and wait, so that it finishes its current requests or jobs.
// Other tools do not work here: `node --watch` misses later changes of a file that an editor has replaced, and nodemon does not wait
// for the program when nodemon itself is stopped.

import { spawn } from "node:child_process";
import { watch } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";

let child;
let stopping = false;
let changed = false;

function run() {
  changed = false;
  child = spawn(process.execPath, process.argv.slice(2), { stdio: "inherit" });
  child.on("exit", (code) => {
    child = undefined;
    if (stopping) process.exit(code ?? 1);
    if (changed) run();
  });
}

watch("src", async () => {
  if (changed || stopping) return;
  changed = true;
  // Wait, because an editor may write a file in several steps, or write several files.
  await sleep(100);
  if (child) child.kill("SIGTERM");
  else run();
});

for (const signal of ["SIGTERM", "SIGINT"]) {
  process.on(signal, () => {
    stopping = true;
    if (child) child.kill(signal);
    else process.exit(0);
  });
}

run();
