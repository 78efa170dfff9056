"use client";

import { useEffect, useState } from "react";

import type { Page } from "./api";

/** Count the visit when the browser shows the page. The server can't count visits, because Next also renders prefetched pages. */
export function Visit({ page, initialCount }: { page: Page; initialCount: number | null }) {
  const [visits, setVisits] = useState(initialCount);
  useEffect(() => {
    fetch(`/api/visits/${page}`, { method: "POST" })
      .then((answer) => answer.json())
      .then((result) => setVisits(result.visits))
      .catch(() => {});
  }, [page]);
  return visits === null ? null : <small>{visits} visits</small>;
}
