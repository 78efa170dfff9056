import type { Metadata } from "next";
import Link from "next/link";
import type { ReactNode } from "react";

import "./style.css";

export const metadata: Metadata = {
  title: { default: "About me", template: "%s · About me" },
  description: "Who I am, what I have made, and how to reach me.",
};

export default function Layout({ children }: { children: ReactNode }) {
  return (
    <html lang="en">
      <body>
        <nav>
          <Link href="/">About</Link> <Link href="/projects">Projects</Link> <Link href="/contact">Contact</Link>
        </nav>
        <main>{children}</main>
      </body>
    </html>
  );
}
