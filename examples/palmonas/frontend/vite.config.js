import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

/**
 * Plugin that gives Vite's dev server the headers and paths of nginx.conf.
 *
 * The header Content-Security-Policy is missing, because the policy would block Vite's hot reload.
 */
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
  // Cache in /tmp, because the rest of the container's file system is read-only. The websocket of hot reload needs no address: it
  // uses the address of the page, which leads through the gateway.
  cacheDir: "/tmp/vite",
  server: { host: true, port: 8080, strictPort: true },
});
