"use client";

import { useRouter } from "next/navigation";
import { type FormEvent, useState } from "react";

export function ContactForm() {
  const router = useRouter();
  const [problem, setProblem] = useState("");

  async function send(event: FormEvent<HTMLFormElement>) {
    event.preventDefault();
    const body = JSON.stringify(Object.fromEntries(new FormData(event.currentTarget)));
    const answer = await fetch("/api/messages", { method: "POST", headers: { "Content-Type": "application/json" }, body });
    if (answer.ok) return router.push(`/contact/${(await answer.json()).id}`);
    setProblem(answer.status === 429 ? "You sent too many messages; try again in an hour." : "The message was not sent; try again.");
  }

  return (
    <form onSubmit={send}>
      <input name="name" placeholder="your name" required maxLength={80} />
      <input name="email" type="email" placeholder="your email address" required maxLength={200} />
      <textarea name="body" placeholder="your message" required maxLength={4000} />
      <button>send</button>
      <output>{problem}</output>
    </form>
  );
}
