// Decoder of the codec `dj_photon_codecs.rans`, written from docs/spec/rans.md; names are those of the page.

const LANES = 32;
const LOW = 65536;
const LIMITS = { uint8: [0, 255], int8: [-128, 127], uint16: [0, 65535], int16: [-32768, 32767] };
const ARRAYS = { uint8: Uint8Array, int8: Int8Array, uint16: Uint16Array, int16: Int16Array };

export class InvalidPayload extends Error {}

function require(legal, what) {
  if (!legal) throw new InvalidPayload(`invalid payload: ${what}`);
}

// Takes one field after the other from a payload, none beyond its end.
class Fields {
  constructor(bytes) {
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.at = 0;
  }

  claim(size, what) {
    require(size <= this.bytes.length - this.at, `it ends within its ${what}`);
    this.at += size;
    return this.at - size;
  }

  u8(what) { return this.view.getUint8(this.claim(1, what)); }
  u16(what) { return this.view.getUint16(this.claim(2, what), true); }
  u32(what) { return this.view.getUint32(this.claim(4, what), true); }
  i32(what) { return this.view.getInt32(this.claim(4, what), true); }

  // A number of the tables: 7 bits in the first byte, 7 more in a second where there is one.
  number(what) {
    const low = this.u8(what);
    if (low < 128) return low;
    const high = this.u8(what);
    require(high >= 1 && high <= 127, what);
    return low - 128 + high * 128;
  }

  // `count` numbers of 16 or 32 bits, with the bytes up to the next multiple of 4.
  numbers(count, bits, what) {
    const begin = this.claim(Math.ceil((count * bits) / 32) * 4, what);
    const found = bits === 16 ? new Uint16Array(count) : new Uint32Array(count);
    for (let i = 0; i < count; i++) {
      found[i] = bits === 16 ? this.view.getUint16(begin + 2 * i, true) : this.view.getUint32(begin + 4 * i, true);
    }
    return found;
  }
}

// T, R, W of an array of this shape.
function movieShape(shape) {
  if (shape.length === 0) return [1, 1, 1];
  if (shape.length === 1) return [shape[0], 1, 1];
  return [shape[0], shape.slice(1, -1).reduce((product, size) => product * size, 1), shape[shape.length - 1]];
}

/**
 * Decode one chunk.
 * @param {Uint8Array} payload - the bytes of the chunk, without a checksum behind them
 * @param {number[]} shape - of the chunk
 * @param {"uint8"|"int8"|"uint16"|"int16"} dtype - of the codes
 * @returns {Uint8Array|Int8Array|Uint16Array|Int16Array} the codes in C order
 * @throws {InvalidPayload} for a payload that the page calls invalid
 */
export function decode(payload, shape, dtype) {
  if (!(dtype in ARRAYS)) throw new TypeError(`no codes of ${dtype}: expected ${Object.keys(ARRAYS).join(", ")}`);
  const [T, R, W] = movieShape(shape);
  const fields = new Fields(payload);
  const form = fields.u8("form");
  require(form === 0 || form === 1, `form ${form}`);
  const codes = form === 0 ? plain(fields, T * R * W, dtype) : coded(fields, T, R, W, dtype);
  require(fields.at === payload.length, "bytes follow its last field");
  return codes;
}

function plain(fields, size, dtype) {
  const width = ARRAYS[dtype].BYTES_PER_ELEMENT;
  require(fields.bytes.length === 4 + size * width, `${fields.bytes.length} bytes for ${size} plain codes`);
  fields.claim(3, "first four bytes");
  const begin = fields.claim(size * width, "codes");
  const codes = new ARRAYS[dtype](size);
  for (let i = 0; i < size; i++) {
    codes[i] = width === 1 ? fields.view.getUint8(begin + i) : fields.view.getUint16(begin + 2 * i, true);
  }
  return codes;
}

function coded(fields, T, R, W, dtype) {
  require(T * R * W > 0, "no pixels");
  const header = readHeader(fields, R, dtype);
  const nBlank = fields.u32("n_blank");
  const tableBytes = fields.u32("table_bytes");
  require(nBlank <= T, "n_blank");
  const modelled = T - nBlank;
  require(modelled ? header.nTables >= 1 && header.nTables <= 256 : !header.nTables && !tableBytes, "n_tables");
  const blank = readBlankFrames(fields, nBlank, T, dtype);
  const bands = modelled ? readDirectory(fields, header, modelled, R, W) : [];
  const begin = fields.claim(Math.ceil(tableBytes / 4) * 4, "tables");
  const tables = modelled ? readTables(fields.bytes.subarray(begin, begin + tableBytes), header) : null;

  const codes = new ARRAYS[dtype](T * R * W);
  for (const [frame, code] of blank) codes.fill(code, frame * R * W, (frame + 1) * R * W);
  const frames = Array.from({ length: T }, (_, frame) => frame).filter((frame) => !blank.has(frame));
  for (const band of bands) {
    const pixels = modelled * band.rows * W;
    band.words = fields.numbers(band.nWords, 16, "words");
    band.escapes = fields.numbers(band.nEscapes, 16, "escapes");
    const size = Math.ceil((pixels * header.lowBits) / 8);
    const low = fields.claim(Math.ceil(size / 4) * 4, "low bits");
    band.low = fields.bytes.subarray(low, low + size);
    decodeBand(band, header, tables, frames, R, W, codes);
  }
  return codes;
}

function readHeader(fields, R, dtype) {
  const bits = 8 * ARRAYS[dtype].BYTES_PER_ELEMENT;
  const [dithered, lowBits, shift, blend, window] =
    ["dithered", "low_bits", "shift", "blend", "window"].map((name) => fields.u8(name));
  const [nTables, start, top] = ["n_tables", "start", "top"].map((name) => fields.u16(name));
  const base = fields.i32("base");
  const bandRows = fields.u32("band_rows");
  require(dithered <= 1, "dithered");
  require(lowBits < bits && !(dithered && lowBits), "low_bits");
  require(shift <= 22, "shift");
  require(window >= 1, "window");
  require(top <= 4095 && start <= top, "start or top");
  require(base >= LIMITS[dtype][0] && base <= LIMITS[dtype][1], "base");
  require(bandRows >= 1 && bandRows <= R, "band_rows");
  const C = ((top * 1024) >> shift) + 1;
  require(C <= 4096, "number of contexts");
  return { dithered, lowBits, shift, blend, window, nTables, start, top, base, bandRows, C };
}

function readBlankFrames(fields, count, T, dtype) {
  const frames = fields.numbers(count, 32, "blank frames");
  const codes = fields.numbers(count, 16, "blank codes");
  const blank = new Map();
  for (let i = 0; i < count; i++) {
    require(frames[i] < T && (i === 0 || frames[i] > frames[i - 1]), "blank frames");
    require(codes[i] < 256 ** ARRAYS[dtype].BYTES_PER_ELEMENT, "blank codes");
    blank.set(frames[i], codes[i]);
  }
  return blank;
}

function readDirectory(fields, { bandRows }, modelled, R, W) {
  const bands = [];
  for (let top = 0; top < R; top += bandRows) {
    const rows = Math.min(bandRows, R - top);
    const nWords = fields.u32("directory");
    const nEscapes = fields.u32("directory");
    const states = fields.numbers(LANES, 32, "directory");
    require(Math.max(nWords, nEscapes) <= modelled * rows * W, "n_words or n_escapes");
    require(states.every((state) => state >= LOW), "states");
    bands.push({ top, rows, nWords, nEscapes, states });
  }
  return bands;
}

// For each context where the slots of its table begin; and of each slot: symbol, frequency, slot - begin(symbol).
function readTables(packed, { nTables, C }) {
  const source = new Fields(packed);
  const of = new Uint32Array(3 * C);
  const symbol = new Uint8Array(nTables * 4096);
  const frequency = new Uint16Array(nTables * 4096);
  const beyond = new Uint16Array(nTables * 4096);
  let context = 0;
  for (let table = 0; table < nTables; table++) {
    const run = source.number("run");
    require(run >= 1 && run <= 3 * C - context, "run");
    of.fill(table * 4096, context, (context += run));
    let slot = 0;
    const add = (s, f) => {
      require(slot + f <= 4096, "frequencies");
      symbol.fill(s, table * 4096 + slot, table * 4096 + slot + f);
      frequency.fill(f, table * 4096 + slot, table * 4096 + slot + f);
      for (let i = 0; i < f; i++) beyond[table * 4096 + slot + i] = i;
      slot += f;
    };
    add(0, source.number("frequency"));
    const first = source.number("first");
    const count = source.number("count");
    require(first >= 1 && first <= 255 && first + count <= 256, "first or count");
    for (let s = first; s < first + count; s++) add(s, source.number("frequency"));
    require(slot === 4096, "frequencies");
  }
  require(context === 3 * C, "run");
  require(source.at === packed.length, "table_bytes");
  return { of, symbol, frequency, beyond };
}

// Prediction

// 16 * k - 504 for each place of the period.
const OFFSETS = Int32Array.from({ length: 4093 }, (_, i) => {
  let power = 1;
  for (let n = 0; n < 5; n++) power = (power * i) % 4093;
  return 16 * Math.floor((64 * power) / 4093) - 504;
});

function blur(a, begin, W, out) {
  for (let x = 0; x < W; x++) {
    out[x] = a[begin + Math.max(x - 1, 0)] + 2 * a[begin + x] + a[begin + Math.min(x + 1, W - 1)];
  }
}

// p of row y in a frame after the first; `m` still has the means of the frame before in rows y and y + 1.
function predict(m, blurred, y, rows, W, weight, p) {
  const above = blurred[(Math.max(y - 1, 0)) % 3];
  const here = blurred[y % 3];
  const below = blurred[Math.min(y + 1, rows - 1) % 3];
  for (let x = 0; x < W; x++) {
    const b = (above[x] + 2 * here[x] + below[x] + 8) >> 4;
    p[x] = b + (((m[y * W + x] - b) * weight + 128) >> 8);
  }
}

function decodeBand(band, header, tables, frames, R, W, codes) {
  const { rows } = band;
  const { top, window, blend, start } = header;
  const highest = top * 1024;
  const symbols = new Symbols(band, header, tables);
  const m = new Int32Array(rows * W);
  const v = new Int32Array(W).fill(start * 1024);
  const [p, U, h, u] = [0, 0, 0, 0].map(() => new Int32Array(W));
  const blurred = [0, 0, 0].map(() => new Int32Array(W));
  let bit = 0;
  frames.forEach((frame, t) => {
    const n = Math.min(t, window);
    const weight = n > 0 ? Math.floor((256 * n) / (n + blend)) : 0;
    const rate = Math.floor(256 / (n + 1));
    const phase = t === 0 ? 0 : t <= 3 ? 1 : 2;
    if (t > 0) blur(m, 0, W, blurred[0]);
    for (let y = 0; y < rows; y++) {
      if (t === 0) p.set(v);
      else {
        if (y + 1 < rows) blur(m, (y + 1) * W, W, blurred[(y + 1) % 3]);
        predict(m, blurred, y, rows, W, weight, p);
      }
      const place = (frame * R + band.top + y) * W; // of the row's first pixel in the chunk
      let i = place % 4093;
      for (let x = 0; x < W; x++) {
        U[x] = header.dithered ? OFFSETS[i] : 0;
        i = i === 4092 ? 0 : i + 1;
        h[x] = Math.min(Math.max(p[x] + U[x], 0), highest);
      }
      symbols.takeRow(h, phase * header.C, t === 0 ? 0 : y * W);
      for (let x = 0; x < W; x++) {
        const g = Math.min(h[x], top) * 1024 - U[x];
        m[y * W + x] += ((g - m[y * W + x]) * rate + 128) >> 8;
        if (t === 0) u[x] = v[x] + ((g - v[x]) >> 2);
        const low = lowBits(band.low, bit, header.lowBits);
        bit += header.lowBits;
        codes[place + x] = header.base + (h[x] << header.lowBits) + low; // typed arrays wrap round as the page has it
      }
      if (t === 0) {
        blur(u, 0, W, v);
        for (let x = 0; x < W; x++) v[x] = (v[x] + 2) >> 2;
      }
    }
  });
  symbols.end();
}

// `count` bits from bit `at` on, the lowest first.
function lowBits(bytes, at, count) {
  let found = 0;
  for (let i = 0; i < count; i++) found |= ((bytes[(at + i) >>> 3] >>> ((at + i) & 7)) & 1) << i;
  return found;
}

// The states, words and escapes of a band.
class Symbols {
  constructor({ states, words, escapes }, header, tables) {
    Object.assign(this, { states, words, escapes, header, tables, word: 0, escape: 0 });
  }

  // Puts high parts in place of the d of a row, whose first pixel has the number `first` in its run.
  takeRow(d, contexts, first) {
    const { states, words, tables } = this;
    const { shift, top } = this.header;
    for (let x = 0; x < d.length; x++) {
      const lane = (first + x) % LANES;
      const slot = tables.of[contexts + (d[x] >> shift)] + (states[lane] & 4095);
      let s = tables.frequency[slot] * (states[lane] >>> 12) + tables.beyond[slot];
      if (s < LOW) {
        require(this.word < words.length, "it asks for more words than there are");
        s = s * 65536 + words[this.word++];
      }
      states[lane] = s;
      const symbol = tables.symbol[slot];
      if (symbol === 0) {
        require(this.escape < this.escapes.length, "it asks for more escapes than there are");
        d[x] = this.escapes[this.escape++];
      } else {
        d[x] = ((d[x] + 512) >> 10) + symbol - 128;
        require(d[x] >= 0 && d[x] <= top, "a level beyond the range");
      }
    }
  }

  end() {
    require(this.states.every((state) => state === LOW), "its states do not end where they should");
    require(this.word === this.words.length && this.escape === this.escapes.length, "words or escapes are left");
  }
}
