export interface Article {
  title: string;
  summary: string;
  url: string;
  published: string;
  comments: number;
}

export function matches(query: string): (article: Article) => boolean {
  const terms = query.toLowerCase().split(/\s+/).filter(Boolean);
  return ({ title, summary }) => terms.every((term) => `${title} ${summary}`.toLowerCase().includes(term));
}

const DAY = 24 * 60 * 60 * 1000;
const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto" });

export function age(article: Article, now: Date): string {
  return relative.format(Math.round((Date.parse(article.published) - now.getTime()) / DAY), "day");
}
