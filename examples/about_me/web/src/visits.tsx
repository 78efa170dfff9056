import { fetchJson, type Page } from "./api";
import { Visit } from "./visit";

/** Show the number of visits of a page: first the number at rendering, then the number that includes this visit. */
export async function Visits({ page }: { page: Page }) {
  const { visits } = await fetchJson<{ visits: number | null }>(`/api/visits/${page}`);
  return (
    <footer>
      <Visit page={page} initialCount={visits} />
    </footer>
  );
}
