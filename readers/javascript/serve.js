// Serves the viewer and a folder of movies on this machine: `node serve.js FOLDER [PORT]`.
// Python's http.server does not do: it ignores the Range header, with which one chunk of a file is asked for.
import { createReadStream, realpathSync, statSync } from "node:fs";
import { createServer } from "node:http";
import { dirname, extname, join, sep } from "node:path";
import { fileURLToPath } from "node:url";

const HERE = dirname(fileURLToPath(import.meta.url));
const TYPES = { ".html": "text/html", ".js": "text/javascript", ".json": "application/json" };

// First and last byte of `bytes=a-b`, `bytes=a-` or `bytes=-n`; null without a range, undefined for one that is not there.
function rangeOf(header, size) {
  const found = /^bytes=(\d*)-(\d*)$/.exec(header ?? "");
  if (!found || !(found[1] || found[2])) return null;
  const first = found[1] ? Number(found[1]) : Math.max(size - Number(found[2]), 0);
  const last = found[1] && found[2] ? Math.min(Number(found[2]), size - 1) : size - 1;
  return first <= last && first < size ? [first, last] : undefined;
}

// The file of a path below one of the two folders; links out of it are not followed.
function fileOf(path, folder) {
  try {
    path = decodeURIComponent(path);
    const [root, rest] = path.startsWith("/photon/") ? [HERE, path.slice("/photon".length)] : [folder, path];
    const file = realpathSync(join(root, rest.endsWith("/") ? `${rest}index.html` : rest));
    return file.startsWith(root + sep) && statSync(file).isFile() ? file : null;
  } catch {
    return null;
  }
}

/** @returns {import("node:http").Server} of the viewer, at /photon/viewer/, and the files of a folder */
export function server(folder) {
  const root = realpathSync(folder);
  return createServer((request, response) => {
    const file = fileOf(new URL(request.url, "http://localhost").pathname, root);
    if (!file || !["GET", "HEAD"].includes(request.method)) return void response.writeHead(file ? 405 : 404).end();
    const size = statSync(file).size;
    const range = rangeOf(request.headers.range, size);
    if (range === undefined) return void response.writeHead(416, { "Content-Range": `bytes */${size}` }).end();
    const [first, last] = range ?? [0, size - 1];
    response.writeHead(range ? 206 : 200, {
      "Content-Type": TYPES[extname(file)] ?? "application/octet-stream",
      "Content-Length": last - first + 1,
      "Accept-Ranges": "bytes",
      ...(range && { "Content-Range": `bytes ${first}-${last}/${size}` }),
    });
    if (request.method === "HEAD" || size === 0) return void response.end();
    createReadStream(file, { start: first, end: last }).pipe(response);
  });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [folder = ".", port = "8000"] = process.argv.slice(2);
  server(folder).listen(Number(port), "localhost", () => {
    console.log(`http://localhost:${port}/photon/viewer/?url=/...  shows a movie below ${folder}`);
  });
}
