// Decoder of the codec `dj_photon_codecs.anscombe`, written from docs/spec/anscombe.md; names are those of the page.
// Numbers of JavaScript are the float64 that the page computes with. Math.sqrt is correctly rounded in every engine
// that uses the processor's instruction.

const INTEGERS = {
  uint8: Uint8Array, int8: Int8Array, uint16: Uint16Array, int16: Int16Array, uint32: Uint32Array, int32: Int32Array,
  uint64: BigUint64Array, int64: BigInt64Array,
};
// Largest finite number, and digits behind the first.
const REALS = { float16: [65504, 10], float32: [2 ** 128 - 2 ** 104, 23], float64: [Number.MAX_VALUE, 52] };
// JavaScript has no array of float16 everywhere: its values come in a Float32Array, which holds them all.
const ARRAYS = { ...INTEGERS, float16: Float32Array, float32: Float32Array, float64: Float64Array };
const KEYS = [
  "zero_level", "conversion_gain", "encoded_dtype", "decoded_dtype", "step", "dither", "under_root", "saturation",
];
const PERIOD = 4093;

// The level k of each place of the period.
const LEVELS = Uint8Array.from({ length: PERIOD }, (_, i) => {
  let power = 1;
  for (let n = 0; n < 5; n++) power = (power * i) % PERIOD;
  return Math.floor((64 * power) / PERIOD);
});

// The lowest and the highest value of an integer type, as BigInt.
function limits(dtype) {
  const bits = BigInt(8 * INTEGERS[dtype].BYTES_PER_ELEMENT);
  return dtype.startsWith("u") ? [0n, (1n << bits) - 1n] : [-(1n << (bits - 1n)), (1n << (bits - 1n)) - 1n];
}

// The nearest whole number, halves to even.
function rint(value) {
  const below = Math.floor(value);
  const rest = value - below;
  if (rest !== 0.5) return rest < 0.5 ? below : below + 1;
  return below % 2 === 0 ? below : below + 1;
}

// floor(log2(y)) of a number above 0.
function exponent(y) {
  let found = Math.floor(Math.log2(y)); // right, or beside it
  while (2 ** found > y) found--;
  while (2 ** (found + 1) <= y) found++;
  return found;
}

// The number of float16 nearest to a value within its range, halves to even.
function toFloat16(value) {
  const distance = 2 ** (Math.max(value === 0 ? -14 : exponent(Math.abs(value)), -14) - 10);
  return rint(value / distance) * distance;
}

/** One configuration of the codec. */
export class Anscombe {
  /**
   * @param {object} configuration - as in the metadata: of Zarr V3, or of Zarr V2 without `id`
   * @throws {Error} where it is invalid
   */
  constructor(configuration) {
    const keys = Object.keys(configuration);
    const { decoded_dtype: dtype, saturation, dither } = configuration;
    const { zero_level: zero, conversion_gain: gain, step, under_root: underRoot } = configuration;
    const legal =
      keys.length === KEYS.length && KEYS.every((key) => keys.includes(key)) &&
      [zero, gain, step, underRoot].every(Number.isFinite) && gain > 0 && step > 0 && underRoot > 0 &&
      underRoot <= 0.375 && configuration.encoded_dtype in INTEGERS && dtype in ARRAYS &&
      ["none", "position"].includes(dither) &&
      (saturation === null || (Number.isFinite(saturation) && (dtype in REALS || Number.isInteger(saturation))));
    if (!legal) throw new Error(`not a configuration of dj_photon_codecs.anscombe: ${JSON.stringify(configuration)}`);
    Object.assign(this, { zero, gain, step, underRoot, dtype, saturation, encoded: configuration.encoded_dtype });
    this.dithered = dither === "position";
    this.whole = dtype in INTEGERS;
    this.runs = [];
    this.cells = 0;
    this.layAll();
    this.origin = 0;
    const zeroCell = this.cell(0);
    const single = this.whole && this.edge(zeroCell + 1) - this.edge(zeroCell) <= 1;
    this.origin = zeroCell - (this.dithered && !single ? 1 : 0);
    if (!this.whole && saturation !== null) this.saturated = this.cell(saturation);
  }

  // Cells

  ends() {
    if (!this.whole) return [-Infinity, Infinity];
    if (this.dtype === "uint64") return [-0.5, 2 ** 64];
    if (this.dtype === "int64") return [-Infinity, 2 ** 63];
    const [min, max] = limits(this.dtype).map(Number);
    return [min - 0.5, max + 0.5];
  }

  unit() {
    if (this.whole || this.saturation === null) return 1;
    const y = Math.max(Math.abs(this.saturation), Math.abs(this.zero));
    return 2 ** ((y === 0 ? -1 : exponent(y)) - (this.dtype === "float16" ? 10 : 23));
  }

  layAll() {
    const [bottom, top] = this.ends();
    const unit = this.unit();
    const singles = this.whole ? [bottom + 0.5, bottom + 1.5, top - 1.5, top - 0.5] : [];
    if (this.saturation !== null) singles.push(this.saturation - unit, this.saturation, this.saturation + unit);
    const inside = singles.filter((count) => bottom < count && count < top && Math.abs(count) < 2 ** 52);
    const groups = [];
    for (const count of [...new Set(inside)].sort((a, b) => a - b)) {
      const group = groups[groups.length - 1];
      if (group && count <= group[group.length - 1] + unit) group.push(count);
      else groups.push([count]);
    }
    let low = bottom;
    for (const group of groups) {
      const [start, stop] = [group[0] - unit / 2, group[group.length - 1] + unit / 2];
      this.layBetween(low, start);
      this.add(start, unit, 0, group.length, stop);
      low = stop;
    }
    this.layBetween(low, top);
  }

  layBetween(low, high) {
    if (!(low < high)) return;
    const { zero, gain, underRoot, whole } = this;
    const narrow = this.step * (127 / 128);
    let width = narrow * gain * Math.sqrt(underRoot);
    let joint;
    let dark = 0;
    if (whole && width < 1) {
      const square = narrow * gain * (narrow * gain);
      const edge = square === 0 ? Infinity : zero + gain * (1 / square - underRoot);
      joint = edge >= high ? high : Math.min(Math.max(Math.ceil(edge - 0.5) + 0.5, low), high);
      width = 1;
    } else {
      const middle = whole ? rint(zero) : zero;
      const half = whole ? Math.floor((width - 1) / 2) + 0.5 : width / 2;
      if (low < middle && middle < high) dark = Math.min(half, middle - low, high - middle);
      joint = Math.min(Math.max(middle + dark, low), high);
    }
    const line = joint - 2 * dark;
    if (low === -Infinity) this.add(line - width, width, 0, 1, line);
    else if (low < line) {
      const cells = Math.ceil((line - low) / width);
      this.add(low, (line - low) / cells, 0, cells, line);
    }
    if (dark > 0) this.add(line, 2 * dark, 0, 1, joint);
    if (joint < high) {
      const r = Math.sqrt(Math.max((joint - zero) / gain, 0) + underRoot);
      const wanted = (Math.sqrt(r * r + (high - joint) / gain) - r) / (narrow / 2);
      const cells = wanted === Infinity ? wanted : Math.max(Math.ceil(wanted), 1);
      const most = whole ? Math.floor(high - joint) : Infinity;
      this.add(joint, gain * narrow * r, gain * (narrow / 2) * (narrow / 2), Math.min(cells, most), high);
    }
  }

  add(start, linear, quadratic, cells, stop) {
    this.runs.push({ number: this.cells, start, linear, quadratic, cells, stop });
    this.cells += cells;
  }

  // The lower edge e(n) of a cell.
  edge(n) {
    const number = n + this.origin;
    let run = this.runs[0];
    for (const next of this.runs) if (next.number <= number) run = next;
    const m = number - run.number;
    const edge = run.start + (run.linear + run.quadratic * m) * m;
    if (!this.whole) return Math.min(edge, run.stop);
    const room = run.cells === Infinity ? 0 : run.cells - m;
    return Math.floor(Math.min(edge, run.stop - room)) + 0.5;
  }

  // The cell that holds a count.
  cell(x) {
    let run = this.runs[0];
    for (const next of this.runs) if (next.start <= x) run = next;
    let low = run.number - this.origin - 1;
    let high = low + 2;
    for (let reach = 1; this.edge(low) > x; reach *= 2) low -= reach;
    for (let reach = 1; this.edge(high) <= x; reach *= 2) high += reach;
    while (high - low > 1) {
      const middle = Math.floor((low + high) / 2);
      if (middle === low || middle === high) break; // beyond 2^53
      if (this.edge(middle) <= x) low = middle;
      else high = middle;
    }
    return low;
  }

  /**
   * What a code stands for: value(c, k), or value(c) without dither.
   * @param {number} c - the code
   * @param {number} k - the level of its place, from 0 to 63; of no effect without dither
   * @returns {number|bigint} bigint for the integer types
   */
  value(c, k) {
    const [low, high] = [this.edge(c), this.edge(c + 1)];
    if (!this.whole) {
      const single = this.saturated !== undefined && Math.abs(c - this.saturated) <= 1;
      const part = this.dithered && !single ? (127 - 2 * k) / 128 : 0.5;
      const [largest] = REALS[this.dtype];
      const count = Math.min(Math.max(low + (high - low) * part, -largest), largest);
      return this.dtype === "float16" ? toFloat16(count) : this.dtype === "float32" ? Math.fround(count) : count;
    }
    const [min, max] = limits(this.dtype);
    const clip = (edge, top) => {
      const count = Math.ceil(edge);
      if (count <= Number(min)) return min;
      return count > Number(max) ? top : BigInt(count);
    };
    const [first, stop] = [clip(low, max + 1n), clip(high, max + 1n)];
    if (stop <= min) return min;
    if (first > max) return max;
    const W = stop - first;
    if (this.dithered) return first + (W * BigInt(127 - 2 * k)) / 128n;
    return first + (W - 1n + BigInt(Math.abs(c % 2))) / 2n;
  }

  /**
   * Decode one chunk.
   * @param {ArrayLike<number|bigint>} codes - all codes of the chunk in C order, in their full shape
   * @param {string} dtype - data type of the array, where that is not `decoded_dtype`: a floating-point one
   * @returns {TypedArray} the counts in C order; those of float16 in a Float32Array
   */
  decode(codes, dtype = this.dtype) {
    const counts = new ARRAYS[dtype](codes.length);
    const big = counts instanceof BigInt64Array || counts instanceof BigUint64Array;
    const known = new Map(); // of each code its counts at all levels
    for (let n = 0; n < codes.length; n++) {
      const c = Number(codes[n]);
      const k = this.dithered ? LEVELS[n % PERIOD] : 0;
      let row = known.get(c);
      if (!row) known.set(c, (row = new Array(64)));
      if (row[k] === undefined) row[k] = big ? this.value(c, k) : Number(this.value(c, k));
      counts[n] = row[k];
    }
    return counts;
  }
}
