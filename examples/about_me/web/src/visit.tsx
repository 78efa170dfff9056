"use client";

import { useEffect, useState } from "react";

import type { Page } from "./api";

/** Told by the browser, once it shows the page: Next also renders pages that it only expects to be opened. */
export function Visit({ page, before }: { page: Page; before: number | null }) {
  const [visits, setVisits] = useState(before);
  useEffect(() => {
    fetch(`/api/visits/${page}`, { method: "POST" })
      .then((answer) => answer.json())
      .then((counted) => setVisits(counted.visits))
      .catch(() => {});
  }, [page]);
  return visits === null ? null : <small>{visits} visits</small>;
}
