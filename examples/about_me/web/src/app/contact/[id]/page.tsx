import { fetchJson, type Message } from "@/api";

export const metadata = { title: "Your message" };

export default async function Sent({ params }: { params: Promise<{ id: string }> }) {
  const { id } = await params;
  const { name, body, created_at } = await fetchJson<Message>(`/api/messages/${encodeURIComponent(id)}`);
  return (
    <>
      <h1>Thank you, {name}</h1>
      <blockquote>{body}</blockquote>
      <small>received {created_at.slice(0, 10)}</small>
    </>
  );
}
