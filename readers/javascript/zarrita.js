// The codecs of docs/spec for zarrita.
import * as zarr from "zarrita";
import { Anscombe } from "./anscombe.js";
import { withoutChecksum } from "./crc32c.js";
import { decode as decodeRans } from "./rans.js";


function readOnly() {
  throw new Error("these codecs only decode; write movies with the Python package dj-photon-codecs");
}

// zarrita has no half precision where the browser has none; the values come in the type that zarrita expects.
function asDtype(counts, dtype) {
  return dtype === "float16" ? new globalThis.Float16Array(counts) : counts;
}

class AnscombeCodec {
  kind = "array_to_array";
  encode = readOnly;

  constructor(configuration, { dataType }) {
    this.transform = new Anscombe(configuration);
    this.dtype = dataType;
  }

  static fromConfig(configuration, meta) {
    return new AnscombeCodec(configuration, meta);
  }

  getEncodedMeta(meta) {
    return { ...meta, dataType: this.transform.encoded, fillValue: null };
  }

  decode(chunk) {
    return { ...chunk, data: asDtype(this.transform.decode(chunk.data, this.dtype), this.dtype) };
  }
}

class RansCodec {
  kind = "array_to_bytes";
  encode = readOnly;

  constructor({ dataType, shape }) {
    Object.assign(this, { dtype: dataType, shape });
    this.stride = shape.map((_, axis) => shape.slice(axis + 1).reduce((product, size) => product * size, 1));
  }

  static fromConfig(configuration, meta) {
    const keys = Object.keys(configuration ?? {});
    if (keys.length) throw new Error(`not a configuration of dj_photon_codecs.rans: it has the keys ${keys}`);
    return new RansCodec(meta);
  }

  decode(bytes) {
    return { data: decodeRans(bytes, this.shape, this.dtype), shape: this.shape, stride: this.stride };
  }
}

// zarrita's own takes the checksum off without looking at it.
class Crc32cCodec {
  kind = "bytes_to_bytes";
  encode = readOnly;
  decode = withoutChecksum;

  static fromConfig() {
    return new Crc32cCodec();
  }

  computeEncodedSize(size) {
    return size + 4;
  }
}

// The filter of Zarr V2 behind which a floating-point movie of whole numbers is coded as integers.
class AsTypeCodec {
  kind = "array_to_array";
  encode = readOnly;

  constructor(encoded, { dataType }) {
    const [, kind, size] = /^[<|]([iu])([1248])$/.exec(encoded);
    this.encoded = `${kind === "u" ? "uint" : "int"}${8 * size}`;
    this.array = { float16: globalThis.Float16Array, float32: Float32Array, float64: Float64Array }[dataType];
  }

  static fromConfig({ encode_dtype: encoded }, meta) {
    return new AsTypeCodec(encoded, meta);
  }

  getEncodedMeta(meta) {
    return { ...meta, dataType: this.encoded };
  }

  decode(chunk) {
    return { ...chunk, data: this.array.from(chunk.data, Number) };
  }
}

/** Register the codecs with zarrita. It looks up the filters of Zarr V2 under "numcodecs." and their names. */
export function registerCodecs(registry = zarr.registry) {
  for (const prefix of ["", "numcodecs."]) {
    registry.set(`${prefix}dj_photon_codecs.anscombe`, async () => AnscombeCodec);
    registry.set(`${prefix}dj_photon_codecs.rans`, async () => RansCodec);
    registry.set(`${prefix}crc32c`, async () => Crc32cCodec);
  }
  registry.set("numcodecs.astype", async () => AsTypeCodec);
}
