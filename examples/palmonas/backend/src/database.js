import pg from "pg";
import { log } from "./logs.js";
import * as settings from "./settings.js";

export const pool = new pg.Pool({ ...settings.database(), max: 8, connectionTimeoutMillis: 5_000, keepAlive: true });
// Of a connection that nobody holds; who asks next gets another one.
pool.on("error", (error) => log.warn({ error }, "a database connection is gone"));

export const rows = async (sql, ...values) => (await pool.query(sql, values)).rows;
