import { defineConfig } from "vite";

export default defineConfig({
  root: "src",
  // Answer 404 for unknown paths, because the landing page is not a single-page application.
  appType: "mpa",
  // Cache in /tmp, because the rest of the container's file system is read-only.
  cacheDir: "/tmp/vite",
  build: { outDir: "../dist", emptyOutDir: true },
  server: { host: "0.0.0.0", port: 3000, strictPort: true },
});
