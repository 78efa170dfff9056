import { fetchJson, type Project } from "@/api";
import { Visits } from "@/visits";

export const metadata = { title: "Projects" };

export default async function Projects() {
  const projects = await fetchJson<Project[]>("/api/projects");
  return (
    <>
      <h1>Projects</h1>
      {projects.length === 0 && <p>Nothing to show yet.</p>}
      {projects.map(({ slug, title, summary, year, link }) => (
        <article key={slug} id={slug}>
          <h2>{link ? <a href={link}>{title}</a> : title}</h2>
          <p>{summary}</p>
          <small>{year}</small>
        </article>
      ))}
      <Visits page="projects" />
    </>
  );
}
