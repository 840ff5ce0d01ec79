// Movies through zarrita, which has to be installed: `npm install`, then `node --test`.
import assert from "node:assert/strict";
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";
import { documentOf, expected, folderOf, names } from "./golden.js";

const zarr = await import("zarrita").catch(() => null);
const skip = zarr ? false : "zarrita is not installed";
const { openMovie, DamagedMovie } = zarr ? await import("../movie.js") : {};
const { registerCodecs } = zarr ? await import("../zarrita.js") : {};
const { server } = await import("../serve.js");

const FLOAT16 = "Float16Array" in globalThis;
const dtypeOf = (name) => documentOf(name)?.data_type;

// A store of zarrita over a local folder.
function store(folder) {
  const bytes = async (key) => {
    try {
      return new Uint8Array(readFileSync(join(folder, key)));
    } catch {
      return undefined;
    }
  };
  return {
    get: bytes,
    async getRange(key, { suffixLength, offset, length }) {
      const found = await bytes(key);
      return suffixLength ? found?.slice(-suffixLength) : found?.slice(offset, offset + length);
    },
  };
}

// A golden movie that the test may damage.
function copyOf(name, t) {
  const folder = mkdtempSync(join(tmpdir(), "photon-"));
  t.after(() => rmSync(folder, { recursive: true }));
  cpSync(folderOf(name), folder, { recursive: true });
  return folder;
}

function change(file, alter) {
  writeFileSync(file, alter(readFileSync(file)));
}

for (const name of names()) {
  const reason = skip || (name.endsWith("legacy") && "anscombe-v1 is not read") ||
    (dtypeOf(name) === "float16" && !FLOAT16 && "this JavaScript has no Float16Array");
  test(`${name} has its counts`, { skip: reason }, async () => {
    const { data, shape } = await zarr.get(await openMovie(store(folderOf(name))));
    const { shape: wantedShape, values } = expected(name);
    assert.deepEqual(shape, wantedShape);
    assert.deepEqual(Array.from(data), Array.from(values));
  });
}

test("frames of several shards are read by http", { skip }, async (t) => {
  const http = server(join(folderOf("v1_shard_edges"), ".."));
  await new Promise((ready) => http.listen(0, "localhost", ready));
  t.after(() => http.close());
  const movie = await openMovie(new zarr.FetchStore(`http://localhost:${http.address().port}/movie.zarr`));
  const { data } = await zarr.get(movie, [zarr.slice(8, 11), null, null]);
  const { shape, values } = expected("v1_shard_edges");
  assert.deepEqual(Array.from(data), Array.from(values.slice(8 * shape[1] * shape[2])));
});

test("zarrita alone reads a movie after registerCodecs", { skip }, async () => {
  registerCodecs();
  const { data } = await zarr.get(await zarr.open(store(folderOf("v1_dense")), { kind: "array" }));
  assert.deepEqual(Array.from(data), Array.from(expected("v1_dense").values));
});

const damages = {
  "an altered bit": [(file) => change(file, (bytes) => (bytes[20] ^= 1, bytes)), /do not match/],
  "an altered index": [(file) => change(file, (bytes) => (bytes[bytes.length - 30] ^= 1, bytes)), /do not match/],
  "a missing shard": [(file) => rmSync(file), /missing/],
  "a chunk that was not written": [(file) => change(file, withoutFirstChunk), /missing/],
  "an empty file": [(file) => change(file, () => Buffer.alloc(0)), /chunk 0,0,0/],
};

// The index says of the first chunk that it was not written; its checksum is right.
function withoutFirstChunk(bytes) {
  const count = 3; // chunks in a shard of v1_shard_edges
  const index = bytes.subarray(bytes.length - 4 - 16 * count);
  index.fill(255, 0, 16);
  index.writeUInt32LE(crc32c(index.subarray(0, -4)), index.length - 4);
  return bytes;
}

const { crc32c } = await import("../crc32c.js");

for (const [what, [damage, message]] of Object.entries(damages)) {
  test(`${what} raises`, { skip }, async (t) => {
    const folder = copyOf("v1_shard_edges", t);
    damage(join(folder, "c", "0", "0", "0"));
    const movie = await openMovie(store(folder));
    await assert.rejects(movie.getChunk([0, 0, 0]), message);
    const { data } = await zarr.get(movie, [10, null, null]); // another shard
    assert.deepEqual(Array.from(data), Array.from(expected("v1_shard_edges").values.slice(-data.length)));
  });
}

test("an intact chunk of another movie raises", { skip }, async (t) => {
  const folder = copyOf("v1_uint16", t);
  cpSync(join(folderOf("v1_photons_8bit"), "c"), join(folder, "c"), { recursive: true });
  const movie = await openMovie(store(folder));
  await assert.rejects(movie.getChunk([0, 0, 0]), DamagedMovie);
});

test("a missing chunk of Zarr 2 raises", { skip }, async (t) => {
  const folder = copyOf("v1_zarr2", t);
  rmSync(join(folder, "3.0.0"));
  const movie = await openMovie(store(folder));
  await assert.rejects(zarr.get(movie), /chunk 3,0,0 is missing/);
});

test("a folder without a movie says so", { skip }, async () => {
  await assert.rejects(openMovie(store(tmpdir())), /no movie is here/);
});

test("a newer format version, lost frames and an unknown codec are refused", { skip }, async (t) => {
  const folder = copyOf("v1_uint16", t);
  const edited = (edit) => {
    const document = JSON.parse(readFileSync(join(folderOf("v1_uint16"), "zarr.json"), "utf8"));
    edit(document);
    writeFileSync(join(folder, "zarr.json"), JSON.stringify(document));
    return openMovie(store(folder));
  };
  await assert.rejects(edited(({ attributes }) => (attributes.dj_photon.format_version = 2)), /format version 2/);
  const lost = await edited(({ attributes }) => (attributes.dj_photon.lost = [[3, 5]]));
  await assert.rejects(lost.getChunk([4, 0, 0]), /frames 3 to 4 were lost/);
  await lost.getChunk([5, 0, 0]);
  const newer = await edited(({ codecs }) => (codecs[0].configuration.codecs[0].name = "dj_photon_codecs.anscombe2"));
  await assert.rejects(newer.getChunk([0, 0, 0]), /anscombe2/);
});
