// Bundle src into dist, with a hash of the content in the name of each asset, and a copy that is compressed with gzip.
import { readFile, writeFile } from "node:fs/promises";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";

const { metafile } = await build({
  entryPoints: ["src/assets/main.js", "src/assets/style.css"],
  entryNames: "[name].[hash]",
  outdir: "dist/assets",
  bundle: true,
  minify: true,
  format: "esm",
  metafile: true,
});

let page = await readFile("src/index.html", "utf8");
for (const [output, { entryPoint }] of Object.entries(metafile.outputs)) {
  page = page.replace(entryPoint.replace("src", ""), output.replace("dist", ""));
  await writeFile(`${output}.gz`, gzipSync(await readFile(output), { level: 9 }));
}
await writeFile("dist/index.html", page);
