// Builds the kit's four files and built.json, which says what they were made of (`make kit`).
// esbuild joins the modules, terser makes the result small.

import { createHash } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { gzipSync } from "node:zlib";

import { build } from "esbuild";
import { minify } from "terser";

// Logical assignment is the newest syntax in use: browsers from 2020 on.
const YEAR = 2021;
const BUILDS = [
  { from: "adroll-kit.js", sources: ["adroll-kit.js"], consent: false, limit: 1000 },
  {
    from: "adroll-kit-consent.js",
    sources: ["adroll-kit.js", "adroll-kit-consent.js"],
    consent: true,
    limit: 2200,
  },
].flatMap((one) => [
  { ...one, origins: false },
  { ...one, origins: true, limit: one.limit + 100 },
]);

process.chdir(import.meta.dirname);
const sha256 = (data) => createHash("sha256").update(data).digest("hex");
const built = {};

for (const { from, sources, consent, origins, limit } of BUILDS) {
  const joined = await build({
    entryPoints: [from],
    bundle: true,
    define: { CONSENT: String(consent), ORIGINS: String(origins) },
    format: "iife",
    minifySyntax: true,
    target: `es${YEAR}`,
    write: false,
  });
  const { code } = await minify(joined.outputFiles[0].text, {
    ecma: YEAR,
    compress: { passes: 3, booleans: false, keep_fargs: false, reduce_funcs: false },
  });
  const gzipped = gzipSync(code, { level: 9 }).length;
  const to = from.replace(".js", origins ? "-origins.min.js" : ".min.js");
  if (gzipped > limit) throw new Error(`${to}: ${gzipped} bytes gzipped, at most ${limit}`);
  writeFileSync(to, code);
  console.log(`${to}: ${gzipped} bytes gzipped`);
  built[to] = {
    sha256: sha256(code),
    sources: Object.fromEntries(sources.map((name) => [name, sha256(readFileSync(name))])),
  };
}

writeFileSync("built.json", JSON.stringify(built, null, 2) + "\n");
