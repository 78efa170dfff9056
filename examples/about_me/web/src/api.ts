import { headers } from "next/headers";
import { notFound } from "next/navigation";

export type Project = { slug: string; title: string; summary: string; year: number; link: string | null };
export type Message = { id: string; name: string; body: string; created_at: string };
export type Page = "about" | "projects" | "contact";

/**
 * Request a path from the api of this slot, with the id of the current request.
 *
 * If the api answers 404 or 422, show Next's page for status 404. Throw an error for any other failure.
 */
export async function fetchJson<T>(path: string): Promise<T> {
  const id = (await headers()).get("x-request-id");
  const answer = await fetch(process.env.API_URL + path, {
    headers: id ? { "X-Request-Id": id } : {},
    cache: "no-store",
    signal: AbortSignal.timeout(10_000),
  });
  if (answer.status === 404 || answer.status === 422) notFound();
  if (!answer.ok) throw new Error(`${path}: HTTP ${answer.status}`);
  return answer.json();
}
