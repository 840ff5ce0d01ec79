// Golden movies: files that the Python package wrote, and the counts that every reader has to find in them.
import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

export const GOLDEN = process.env.PHOTON_GOLDEN ?? fileURLToPath(new URL("../../../tests/data/golden", import.meta.url));
const ARRAYS = {
  u1: Uint8Array, i1: Int8Array, u2: Uint16Array, i2: Int16Array, u4: Uint32Array, i4: Int32Array,
  u8: BigUint64Array, i8: BigInt64Array, f4: Float32Array, f8: Float64Array,
};

export function names() {
  return readdirSync(GOLDEN, { withFileTypes: true }).filter((entry) => entry.isDirectory()).map((entry) => entry.name);
}

export const folderOf = (name) => join(GOLDEN, name, "movie.zarr");

/** The metadata document of a golden movie of Zarr 3, or null. */
export function documentOf(name) {
  const { zarr } = JSON.parse(readFileSync(join(GOLDEN, name, "row.json"), "utf8"));
  return zarr["zarr.json"] ?? null;
}

/** Shape and values, in C order, of a file of numpy. */
export function expected(name) {
  const bytes = readFileSync(join(GOLDEN, name, "expected.npy"));
  const begin = 10 + bytes.readUInt16LE(8);
  const header = bytes.toString("latin1", 10, begin);
  const [, dtype] = /'descr': '[<|](..)'/.exec(header);
  const shape = /\(([^)]*)\)/.exec(header)[1].split(",").filter((size) => size.trim()).map(Number);
  const content = new Uint8Array(bytes.subarray(begin)).buffer;
  return { shape, values: dtype === "f2" ? halves(new Uint16Array(content)) : new ARRAYS[dtype](content) };
}

function halves(bits) {
  return Float32Array.from(bits, (half) => {
    const [sign, exponent, digits] = [half & 0x8000 ? -1 : 1, (half >> 10) & 31, half & 1023];
    return sign * (exponent ? 2 ** (exponent - 15) * (1 + digits / 1024) : 2 ** -14 * (digits / 1024));
  });
}

/** The chunks of a golden movie of one shard row: coordinates and bytes, with their checksum. */
export function* chunksOf(name) {
  const { shape, chunk_grid: grid, codecs } = documentOf(name);
  const inner = codecs[0].configuration.chunk_shape;
  const shard = grid.configuration.chunk_shape;
  const places = shard.map((size, axis) => size / inner[axis]);
  for (let number = 0; number < Math.ceil(shape[0] / shard[0]); number++) {
    const file = readFileSync(join(folderOf(name), "c", String(number), ...shape.slice(1).map(() => "0")));
    const count = places.reduce((product, size) => product * size, 1);
    const index = file.subarray(file.length - 4 - 16 * count);
    for (let place = 0; place < count; place++) {
      const [offset, length] = [0, 8].map((at) => index.readBigUInt64LE(16 * place + at));
      if (offset === 2n ** 64n - 1n) continue;
      const start = [number * shard[0], ...shape.slice(1).map(() => 0)];
      for (let axis = places.length - 1, rest = place; axis >= 0; axis--) {
        start[axis] += (rest % places[axis]) * inner[axis];
        rest = Math.floor(rest / places[axis]);
      }
      yield { start, bytes: new Uint8Array(file.subarray(Number(offset), Number(offset + length))) };
    }
  }
}
