import { headers } from "next/headers";
import { notFound } from "next/navigation";

export type Project = { slug: string; title: string; summary: string; year: number; link: string | null };
export type Message = { id: string; name: string; body: string; created_at: string };
export type Page = "about" | "projects" | "contact";

/** What the api of this slot answers, asked under the id of the request that is being answered. */
export async function ask<T>(path: string): Promise<T> {
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
