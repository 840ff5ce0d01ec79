// Frames, means and traces of a movie, read a chunk at a time.
import * as zarr from "zarrita";
import { openMovie } from "../movie.js";

const CACHE_BYTES = 256 * 2 ** 20; // of decoded chunks

export class MovieView {
  constructor(array) {
    const { shape, chunks } = array;
    const [height, width] = shape.slice(-2);
    const bytes = chunks.reduce((product, size) => product * size, 1) * 8;
    const ofFrame = Math.ceil(height / chunks.at(-2)) * Math.ceil(width / chunks.at(-1));
    Object.assign(this, { frames: shape[0], height, width, ahead: chunks[0] });
    this.array = cached(array, Math.max(2 * ofFrame, Math.floor(CACHE_BYTES / bytes)));
    this.planes = shape.slice(1, -2).reduce((product, size) => product * size, 1);
    const { acquisition = {}, calibration = {} } = array.attrs.dj_photon ?? {};
    this.secondsPerFrame = acquisition.TimeIncrement;
    this.micrometres = acquisition.PhysicalSizeX;
    const { conversion_gain: gain, zero_level: zero, verdict } = calibration;
    this.photons = verdict === "measured" ? { gain, zero } : null; // a bound on the noise does not give photons
  }

  /** @param {string} url - of the movie's folder */
  static async open(url) {
    const array = await openMovie(new zarr.FetchStore(url));
    if (array.shape.length < 3) throw new Error(`an array of ${array.shape.length} axes is not a movie`);
    return new MovieView(array);
  }

  // Indices of a plane, its number counted over all axes between time and height.
  plane(number) {
    const place = [];
    for (const size of this.array.shape.slice(1, -2).reverse()) {
      place.unshift(number % size);
      number = Math.floor(number / size);
    }
    return place;
  }

  /** @returns {Promise<TypedArray>} counts of a frame, row by row */
  async frame(time, plane) {
    return (await zarr.get(this.array, [time, ...this.plane(plane), null, null])).data;
  }

  // Blocks of frames of a part of the picture: number of the first frame, counts, pixels of a frame.
  async *blocks(plane, rows, columns) {
    for (let first = 0; first < this.frames; first += this.ahead) {
      const times = zarr.slice(first, Math.min(first + this.ahead, this.frames));
      const { data, shape } = await zarr.get(this.array, [times, ...this.plane(plane), rows, columns]);
      yield { first, data, pixels: data.length / shape[0] };
      await new Promise((resume) => setTimeout(resume)); // lets the page answer
    }
  }

  /** Mean image; yields what it is so far, after each chunk in time. */
  async *mean(plane) {
    const sum = new Float64Array(this.height * this.width);
    for await (const { first, data, pixels } of this.blocks(plane, null, null)) {
      for (let i = 0; i < data.length; i++) sum[i % pixels] += Number(data[i]);
      const frames = first + data.length / pixels;
      yield { frames, image: sum.map((value) => value / frames) };
    }
  }

  /** Mean of a rectangle in each frame; yields what there is so far. */
  async *trace(plane, { left, right, top, bottom }) {
    const found = [];
    for await (const { data, pixels } of this.blocks(plane, zarr.slice(top, bottom), zarr.slice(left, right))) {
      for (let start = 0; start < data.length; start += pixels) {
        let sum = 0;
        for (let i = start; i < start + pixels; i++) sum += Number(data[i]);
        found.push(sum / pixels);
      }
      yield found;
    }
  }
}

// The array, which keeps the decoded chunks that were used last.
function cached(array, most) {
  const chunks = new Map();
  return zarr.defineArrayExtension((inner) => ({
    getChunk(coords, options) {
      const key = coords.join();
      const chunk = chunks.get(key) ?? inner.getChunk(coords, options);
      chunk.catch(() => chunks.delete(key)); // asked again, it is read again
      chunks.delete(key);
      chunks.set(key, chunk);
      if (chunks.size > most) chunks.delete(chunks.keys().next().value);
      return chunk;
    },
  }))(array);
}
