// The decoders alone, without any package.
import assert from "node:assert/strict";
import test from "node:test";
import { crc32c, withoutChecksum } from "../crc32c.js";
import { Anscombe, InvalidPayload, decodeRans } from "../index.js";
import { chunksOf, documentOf, expected, names } from "./golden.js";

const codecsOf = (name) => new Map(
  (documentOf(name)?.codecs[0].configuration.codecs ?? []).map((codec) => [codec.name, codec.configuration]),
);
const DENSE = names().filter((name) => codecsOf(name).has("dj_photon_codecs.rans"));

// The counts of a movie whose chunks need no decompression but our own.
function decoded(name) {
  const { shape, data_type: dtype, codecs } = documentOf(name);
  const inner = codecs[0].configuration.chunk_shape;
  const transform = codecsOf(name).get("dj_photon_codecs.anscombe");
  const counts = [];
  for (const { start, bytes } of chunksOf(name)) {
    const codes = decodeRans(withoutChecksum(bytes), inner, transform?.encoded_dtype ?? dtype);
    const chunk = transform ? new Anscombe(transform).decode(codes, dtype) : codes;
    chunk.forEach((value, n) => {
      let [place, rest] = [0, n];
      const position = inner.map((_, axis) => {
        const below = inner.slice(axis + 1).reduce((product, size) => product * size, 1);
        const at = start[axis] + Math.floor(rest / below);
        rest %= below;
        return at;
      });
      if (position.some((at, axis) => at >= shape[axis])) return;
      position.forEach((at, axis) => (place = place * shape[axis] + at));
      counts[place] = value;
    });
  }
  return counts;
}

test("the checksum is that of RFC 3720", () => {
  assert.equal(crc32c(new TextEncoder().encode("123456789")), 0xe3069283);
  assert.equal(crc32c(new Uint8Array(32)), 0x8a9136aa);
});

test("there are dense golden movies", () => assert.ok(DENSE.length >= 8, DENSE.join()));

for (const name of DENSE) {
  test(`${name} has its counts`, () => assert.deepEqual(decoded(name), Array.from(expected(name).values)));
}

test("a chunk with an altered bit, or cut, is refused", () => {
  const [{ bytes }] = chunksOf("v1_dense");
  for (const place of [0, 100, bytes.length - 1]) {
    const altered = bytes.slice();
    altered[place] ^= 4;
    assert.throws(() => withoutChecksum(altered), /damaged chunk/);
  }
  assert.throws(() => withoutChecksum(bytes.slice(0, -1)), /damaged chunk/);
  assert.throws(() => withoutChecksum(bytes.slice(0, 3)), /damaged chunk/);
  const shape = documentOf("v1_dense").codecs[0].configuration.chunk_shape;
  assert.throws(() => decodeRans(bytes.slice(0, -5), shape, "uint8"), InvalidPayload);
});

test("a configuration with an unknown or a missing key is refused", () => {
  const configuration = codecsOf("v1_dense").get("dj_photon_codecs.anscombe");
  assert.throws(() => new Anscombe({ ...configuration, version: 2 }), /not a configuration/);
  const { step, ...rest } = configuration;
  assert.throws(() => new Anscombe(rest), /not a configuration/);
});
