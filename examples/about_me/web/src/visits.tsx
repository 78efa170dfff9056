import { ask, type Page } from "./api";
import { Visit } from "./visit";

/** How often a page was visited: as of its rendering, then with the visit that this is. */
export async function Visits({ page }: { page: Page }) {
  const { visits } = await ask<{ visits: number | null }>(`/api/visits/${page}`);
  return (
    <footer>
      <Visit page={page} before={visits} />
    </footer>
  );
}
