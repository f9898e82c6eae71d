// Puts together what a web server needs: `node build.mjs [FOLDER]`, by default dist/.
// The page is the embedded server's, with another main.js.

import { copyFile, mkdir, readdir, rm } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const page = join(here, "../../psanet_tf/serving/server/page");
const packages = join(here, "node_modules");
const out = resolve(process.argv[2] ?? join(here, "dist"));

const ofPage = ["attention.js", "index.html", "page.css", "page.js", "picture.js", "refusal.js"];
// Names of modules end in .js, for which every web server has the type.
const ofPackages = {
  "onnxruntime-web/dist/ort.wasm.bundle.min.mjs": "ort.js",
  "onnxruntime-web/dist/ort-wasm-simd-threaded.wasm": "ort-wasm-simd-threaded.wasm",
  "pbf/index.js": "pbf.js",
  "pbf/LICENSE": "pbf.LICENSE.txt",
};

await rm(out, { recursive: true, force: true });
await mkdir(out, { recursive: true });
for (const name of ofPage) await copyFile(join(page, name), join(out, name));
for (const name of await readdir(join(here, "src"))) await copyFile(join(here, "src", name), join(out, name));
for (const [path, name] of Object.entries(ofPackages)) {
  await copyFile(join(packages, path), join(out, name)).catch((error) => {
    if (error.code !== "ENOENT") throw error;
    console.error(`${path} is missing: run npm ci first`);
    process.exit(1);
  });
}
console.log(`${out} holds the page; put an .onnx file beside it and serve the folder`);
