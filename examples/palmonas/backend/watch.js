// Run a program of src, and run it anew when something in src changes: `node watch.js src/server.js`, for development.
// It ends by SIGTERM and is waited for, whoever wants it to end: what it holds is finished. (node --watch loses sight of
// a file that an editor has replaced; nodemon leaves without its child when it is told to end itself.)

import { spawn } from "node:child_process";
import { watch } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";

let child;
let ending = false;
let changed = false;

function run() {
  changed = false;
  child = spawn(process.execPath, process.argv.slice(2), { stdio: "inherit" });
  child.on("exit", (code) => {
    child = undefined;
    if (ending) process.exit(code ?? 1);
    if (changed) run();
  });
}

watch("src", async () => {
  if (changed || ending) return;
  changed = true;
  // An editor writes in several steps, and often several files.
  await sleep(100);
  if (child) child.kill("SIGTERM");
  else run();
});

for (const signal of ["SIGTERM", "SIGINT"]) {
  process.on(signal, () => {
    ending = true;
    if (child) child.kill(signal);
    else process.exit(0);
  });
}

run();
