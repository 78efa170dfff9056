import { createWriteStream, existsSync, readdirSync, renameSync, rmSync, statSync, type WriteStream } from "node:fs";
import { hostname } from "node:os";

const { RELEASE = "unreleased", SLOT = "none" } = process.env;
const FOLDER = "/var/log/about-me";
const MOST_BYTES = 2 ** 20;
const KEPT_DAYS = 7;

/** A copy that outlives the container. Both slots and all replicas share the folder: each has a file of its own, for none can rotate another's. */
class LogFile {
  private readonly path = `${FOLDER}/${SLOT}-${hostname()}.log`;
  private stream: WriteStream;
  private bytes = 0;

  constructor() {
    for (const file of readdirSync(FOLDER).map((name) => `${FOLDER}/${name}`)) {
      const written = statSync(file, { throwIfNoEntry: false })?.mtimeMs ?? Date.now();
      if (written < Date.now() - KEPT_DAYS * 86_400_000) rmSync(file, { force: true });
    }
    this.stream = this.open();
  }

  write(line: string) {
    if (this.bytes > MOST_BYTES) {
      this.stream.end();
      renameSync(this.path, `${this.path}.1`);
      this.stream = this.open();
    }
    this.bytes += Buffer.byteLength(line);
    this.stream.write(line);
  }

  private open() {
    this.bytes = statSync(this.path, { throwIfNoEntry: false })?.size ?? 0;
    // A full disk costs the copy, not the service.
    return createWriteStream(this.path, { flags: "a" }).on("error", (error) => process.stderr.write(`${error}\n`));
  }
}

const file = existsSync(FOLDER) ? new LogFile() : undefined;

/** One JSON object a line, on stdout and in the file. */
export function log(level: string, message: string, fields: object = {}) {
  const line = { time: new Date().toISOString(), level, message, release: RELEASE, slot: SLOT, ...fields };
  const text = `${JSON.stringify(line)}\n`;
  process.stdout.write(text);
  file?.write(text);
}
