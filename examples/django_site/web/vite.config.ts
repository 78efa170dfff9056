import { defineConfig } from "vite";

export default defineConfig({
  root: "src",
  // What is not there is not found: the landing page is one page among others.
  appType: "mpa",
  // The container may write to /tmp, and nowhere else.
  cacheDir: "/tmp/vite",
  build: { outDir: "../dist", emptyOutDir: true },
  server: { host: "0.0.0.0", port: 3000, strictPort: true },
});
