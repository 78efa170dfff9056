import pg from "pg";
import { log } from "./logs.js";
import * as settings from "./settings.js";

export const pool = new pg.Pool({ ...settings.database(), max: 8, connectionTimeoutMillis: 5_000, keepAlive: true });
// The pool reports errors of idle connections here. The next query gets another connection.
pool.on("error", (error) => log.warn({ error }, "an idle database connection was lost"));

export const rows = async (sql, ...values) => (await pool.query(sql, values)).rows;
