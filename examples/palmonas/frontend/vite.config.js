import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

/** The dev server answers what nginx does of itself: see nginx.conf. A policy for content would forbid what reloads it. */
const likeNginx = {
  name: "like-nginx",
  configureServer({ middlewares }) {
    const { RELEASE: release = "unreleased", SLOT: slot } = process.env;
    middlewares.use((request, response, next) => {
      response.setHeader("X-Release", release);
      response.setHeader("X-Frame-Options", "DENY");
      response.setHeader("X-Content-Type-Options", "nosniff");
      response.setHeader("Referrer-Policy", "strict-origin-when-cross-origin");
      if (request.url === "/health") return response.end("ok\n");
      if (request.url !== "/release.json") return next();
      response.setHeader("Content-Type", "application/json");
      response.end(JSON.stringify({ release, slot }));
    });
  },
};

export default defineConfig({
  plugins: [react(), likeNginx],
  // The image is read-only where it runs. The page's websocket comes by the gateway, at the address of the page.
  cacheDir: "/tmp/vite",
  server: { host: true, port: 8080, strictPort: true },
});
