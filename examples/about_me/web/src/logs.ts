import { createWriteStream, existsSync, readdirSync, renameSync, rmSync, statSync, type WriteStream } from "node:fs";
import { hostname } from "node:os";

const { RELEASE = "unreleased", SLOT = "none" } = process.env;
const FOLDER = "/var/log/about-me";
const MAX_BYTES = 2 ** 20;
const KEPT_DAYS = 7;

/**
 * Log file in a volume, which outlives the container.
 *
 * All replicas of both slots share the folder. Each process needs its own file, because two processes can't rotate the same file.
 */
class LogFile {
  private readonly path = `${FOLDER}/${SLOT}-${hostname()}.log`;
  private stream: WriteStream;
  private bytes = 0;

  constructor() {
    for (const file of readdirSync(FOLDER).map((name) => `${FOLDER}/${name}`)) {
      const modifiedAt = statSync(file, { throwIfNoEntry: false })?.mtimeMs ?? Date.now();
      if (modifiedAt < Date.now() - KEPT_DAYS * 86_400_000) rmSync(file, { force: true });
    }
    this.stream = this.open();
  }

  write(line: string) {
    if (this.bytes > MAX_BYTES) {
      this.stream.end();
      renameSync(this.path, `${this.path}.1`);
      this.stream = this.open();
    }
    this.bytes += Buffer.byteLength(line);
    this.stream.write(line);
  }

  private open() {
    this.bytes = statSync(this.path, { throwIfNoEntry: false })?.size ?? 0;
    // Report write errors, such as a full disk, and continue: the service works without its log file.
    return createWriteStream(this.path, { flags: "a" }).on("error", (error) => process.stderr.write(`${error}\n`));
  }
}

const file = existsSync(FOLDER) ? new LogFile() : undefined;

/** Write a log line as a JSON object, to stdout and to the log file. */
export function log(level: string, message: string, fields: object = {}) {
  const line = { time: new Date().toISOString(), level, message, release: RELEASE, slot: SLOT, ...fields };
  const text = `${JSON.stringify(line)}\n`;
  process.stdout.write(text);
  file?.write(text);
}
