import type { NextConfig } from "next";

const development = process.env.NODE_ENV === "development";

// Next sends the data of a page as inline scripts. Its development server runs edited modules with eval().
const scripts = `script-src 'self' 'unsafe-inline'${development ? " 'unsafe-eval'" : ""}`;

const headers = {
  "Content-Security-Policy": `default-src 'self'; ${scripts}; style-src 'self' 'unsafe-inline'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'`,
  "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
  "Referrer-Policy": "strict-origin-when-cross-origin",
  "X-Content-Type-Options": "nosniff",
  "X-Frame-Options": "DENY",
};

const config: NextConfig = {
  output: "standalone",
  poweredByHeader: false,
  headers: async () => [
    { source: "/:path*", headers: Object.entries(headers).map(([key, value]) => ({ key, value })) },
  ],
  // Leave out sharp, which resizes images: this site does not use it, and it is a third of the server's size.
  images: { unoptimized: true },
  outputFileTracingExcludes: { "*": ["node_modules/sharp/**", "node_modules/@img/**"] },
};

export default config;
