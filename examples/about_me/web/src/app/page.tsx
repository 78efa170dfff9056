import Link from "next/link";

import { fetchJson, type Project } from "@/api";
import { Visits } from "@/visits";

export default async function About() {
  const [newest] = await fetchJson<Project[]>("/api/projects");
  return (
    <>
      <h1>About me</h1>
      <p>I write programs for machines, some of which exist.</p>
      {newest && (
        <p>
          The latest is <Link href="/projects">{newest.title}</Link>, of {newest.year}.
        </p>
      )}
      <Visits page="about" />
    </>
  );
}
