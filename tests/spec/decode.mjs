// Decodes chunks with the reader in JavaScript: `node decode.mjs MANIFEST`, which lists files, shapes and codecs.
import { readFileSync, writeFileSync } from "node:fs";
import { Anscombe, InvalidPayload, decodeRans } from "../../readers/javascript/index.js";

const ARRAYS = {
  uint8: Uint8Array, int8: Int8Array, uint16: Uint16Array, int16: Int16Array, uint32: Uint32Array, int32: Int32Array,
  uint64: BigUint64Array, int64: BigInt64Array,
};

function decoded({ file, rans, shape, codes, configuration, dtype }) {
  const bytes = new Uint8Array(readFileSync(file));
  const found = rans ? decodeRans(bytes, shape, codes) : new ARRAYS[codes](bytes.slice().buffer);
  return configuration ? new Anscombe(configuration).decode(found, dtype) : found;
}

for (const job of JSON.parse(readFileSync(process.argv[2], "utf8"))) {
  if (job.value) {
    const { c, k, configuration } = job.value;
    console.log(String(new Anscombe(configuration).value(c, k)));
    continue;
  }
  try {
    writeFileSync(`${job.file}.decoded`, new Uint8Array(decoded(job).buffer));
  } catch (error) {
    if (!(error instanceof InvalidPayload)) throw error;
    console.log(`${job.file}: ${error.message}`);
  }
}
