// Opens a stored movie with zarrita. Counts that were lost or altered raise an error: docs/spec/layout.md.
import * as zarr from "zarrita";
import { registerCodecs } from "./zarrita.js";

const FORMAT_VERSION = 1; // the newest record that this reader knows
const EMPTY = 2n ** 64n - 1n; // offset and length, in the index of a shard, of a chunk that was not written

/** Counts that the movie had and that are not in the store, or not as they were written. */
export class DamagedMovie extends Error {}

/**
 * Open a movie.
 * @param {object} store - a store of zarrita, such as `new FetchStore(url)`
 * @returns {Promise<zarr.Array>} an array of zarrita, which has the movie's counts; `attrs.dj_photon` is its record
 * @throws {DamagedMovie} from every later read of a chunk that is missing, altered, or another than was recorded
 */
export async function openMovie(store) {
  registerCodecs();
  const noted = new NotingStore(store);
  const document = await noted.get("/zarr.json");
  if (!document && !(await noted.get("/.zarray"))) throw new Error("no movie is here: neither zarr.json nor .zarray");
  const array = await zarr.open[document ? "v3" : "v2"](noted, { kind: "array" });
  const record = array.attrs.dj_photon;
  if (record && !(record.format_version <= FORMAT_VERSION)) {
    throw new Error(`format version ${record.format_version} is newer than this reader, which knows ${FORMAT_VERSION}`);
  }
  const ends = document ? shardedEnds(noted, JSON.parse(new TextDecoder().decode(document))) : plainEnds(noted);
  const expected = record?.checksums === undefined ? null : checksums(record, array);
  return zarr.defineArrayExtension((inner) => ({
    getChunk: (coords, options) => readChunk(inner, coords, options, ends, expected),
  }))(array);
}

async function readChunk(array, coords, options, endOf, expected) {
  const [first, stop] = [coords[0] * array.chunks[0], (coords[0] + 1) * array.chunks[0]];
  const lost = (array.attrs.dj_photon?.lost ?? []).find((run) => run[0] < stop && run[1] > first);
  if (lost) throw new DamagedMovie(`frames ${lost[0]} to ${lost[1] - 1} were lost before they were stored`);
  let chunk;
  try {
    chunk = await array.getChunk(coords, options);
  } catch (cause) {
    const { message } = cause.cause ?? cause; // zarrita says first which codec failed
    throw new Error(`chunk ${coords}: ${message}`, { cause });
  }
  const end = endOf(coords); // zarrita shows its fill value for a chunk that is not there
  if (!end) throw new DamagedMovie(`chunk ${coords} is missing: a part of the movie was lost`);
  if (expected && end !== expected(coords)) {
    throw new DamagedMovie(`chunk ${coords} is not the one that was recorded: it is from another place or movie`);
  }
  return chunk;
}

// Passes everything on, and notes the indices of shards and the last 4 bytes of every chunk.
class NotingStore {
  constructor(inner) { // not "store": zarrita takes what has a store for a place in one
    Object.assign(this, { inner, indices: new Map(), ends: new Map() });
  }

  async get(key, options) {
    const bytes = await this.inner.get(key, options);
    if (bytes) this.ends.set(key, hex(bytes.slice(-4)));
    return bytes;
  }

  async getRange(key, range, options) {
    const bytes = await this.inner.getRange(key, range, options);
    if (bytes && "suffixLength" in range) this.indices.set(key, bytes);
    else if (bytes) this.ends.set(`${key}@${range.offset}`, hex(bytes.slice(-4)));
    return bytes;
  }
}

function hex(bytes) {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function plainEnds(noted) {
  return (coords) => noted.ends.get(`/${coords.join(".")}`);
}

// The end of a chunk in a shard, by its entry in the index that zarrita has read.
function shardedEnds(noted, { chunk_grid: grid, codecs }) {
  const inner = codecs[0].configuration.chunk_shape;
  const places = grid.configuration.chunk_shape.map((size, axis) => size / inner[axis]);
  return (coords) => {
    const key = `/c/${coords.map((c, axis) => Math.floor(c / places[axis])).join("/")}`;
    const index = noted.indices.get(key);
    if (!index) return undefined;
    const place = coords.reduce((number, c, axis) => number * places[axis] + (c % places[axis]), 0);
    const offset = new DataView(index.buffer, index.byteOffset).getBigUint64(16 * place, true);
    return offset === EMPTY ? undefined : noted.ends.get(`${key}@${offset}`);
  };
}

// What the record says of the end of each chunk.
function checksums(record, { shape, chunks }) {
  const bytes = Uint8Array.from(atob(record.checksums), (letter) => letter.charCodeAt(0));
  const grid = shape.map((size, axis) => Math.ceil(size / chunks[axis]));
  const count = grid.reduce((product, size) => product * size, 1);
  if (bytes.length !== 4 * count) {
    throw new DamagedMovie(`the record has ${bytes.length} bytes of checksums for ${count} chunks`);
  }
  return (coords) => {
    const number = coords.reduce((n, c, axis) => n * grid[axis] + c, 0);
    return hex(bytes.subarray(4 * number, 4 * number + 4));
  };
}
