/** Start to observe requests. Next calls this function once, when a server starts. */
export async function register() {
  if (process.env.NEXT_RUNTIME === "nodejs") (await import("./requests")).observe();
}
