// The page: plays the movie of `?url=...`.
import { MovieView } from "./movie_view.js";
import { drawAxes, drawImage, drawLine, drawRectangle, plotArea } from "./plot.js";

const $ = (id) => document.getElementById(id);
const state = { movie: null, image: null, low: 0, high: 1, region: null, trace: [], mean: null, playing: false };
let reading = 0; // number of the newest scan of the movie; an older one stops

function fail(error) {
  state.playing = false;
  $("error").textContent = error.message;
  $("error").hidden = false;
  console.error(error);
}

// Runs what a control asks for; an error is shown and nothing else.
const guarded = (action) => (...event) => Promise.resolve().then(() => action(...event)).catch(fail);

// Units: contrast, picture and trace are kept in counts and shown in what is selected.

function inUnit(counts) {
  if ($("unit").value === "counts") return counts;
  const { gain, zero } = state.movie.photons;
  return (counts - zero) / gain;
}

function fromUnit(value) {
  if ($("unit").value === "counts") return value;
  const { gain, zero } = state.movie.photons;
  return value * gain + zero;
}

const unitName = () => ($("unit").value === "counts" ? "counts (ADU)" : "photons per pixel");

// Drawing

function imageArea() {
  const { width, height } = state.movie;
  return plotArea($("image"), [0, width], [0, height], { down: true, square: true });
}

function draw() {
  if (!state.image) return;
  const { width, height, micrometres } = state.movie;
  const area = imageArea();
  drawImage($("image"), area, state.image, width, height, state.low, state.high);
  const size = micrometres ? `, ${Number(micrometres.toPrecision(3))} µm each` : "";
  drawAxes($("image"), area, `x (pixels${size})`, "y (pixels)");
  if (state.region) drawRectangle($("image"), area, state.region);
}

function drawTrace() {
  const ys = state.trace.map(inUnit);
  if (ys.length < 2) return;
  const seconds = state.movie.secondsPerFrame;
  const xs = (i) => i * (seconds ?? 1);
  const [low, high] = ys.reduce(([least, most], y) => [Math.min(least, y), Math.max(most, y)], [Infinity, -Infinity]);
  const area = plotArea($("trace"), [0, xs(state.movie.frames - 1)], [low, high === low ? low + 1 : high]);
  drawLine($("trace"), area, xs, ys);
  drawAxes($("trace"), area, seconds ? "time (s)" : "frame", `mean ${unitName()}`);
}

function showContrast() {
  $("low").value = Number(inUnit(state.low).toPrecision(5));
  $("high").value = Number(inUnit(state.high).toPrecision(5));
}

function autoContrast() {
  const sorted = Float64Array.from(state.image, Number).sort();
  state.low = sorted[Math.floor(0.01 * sorted.length)];
  state.high = sorted[Math.min(Math.ceil(0.995 * sorted.length), sorted.length - 1)];
  showContrast();
  draw();
}

// Reading

async function showFrame(time) {
  const { movie } = state;
  $("time").value = time;
  const seconds = movie.secondsPerFrame ? `, ${(time * movie.secondsPerFrame).toFixed(2)} s` : "";
  $("where").textContent = `frame ${time} of ${movie.frames}${seconds}`;
  const image = await movie.frame(time, Number($("plane").value));
  if ($("view").value !== "frame" || movie !== state.movie) return;
  state.image = image;
  draw();
}

async function play() {
  state.playing = !state.playing;
  $("play").textContent = state.playing ? "Pause" : "Play";
  $("view").value = "frame";
  const { movie } = state;
  const start = performance.now();
  let shown = 0;
  for (let time = Number($("time").value); state.playing && time + 1 < movie.frames; shown++) {
    time = Number($("time").value) + 1;
    const ahead = time + movie.ahead; // the chunk after this one is fetched meanwhile
    if (ahead < movie.frames) movie.frame(ahead, Number($("plane").value)).catch(() => {}); // shown when it is its turn
    const due = start + (shown + 1) * 1000 * (movie.secondsPerFrame ?? 1 / 30);
    await showFrame(time);
    await new Promise((resume) => setTimeout(resume, Math.max(due - performance.now(), 0)));
  }
  const rate = shown / ((performance.now() - start) / 1000);
  $("status").textContent = `${shown} frames at ${rate.toFixed(0)} frames/s`;
  state.playing = false;
  $("play").textContent = "Play";
}

async function showMean() {
  const mine = ++reading;
  for await (const { frames, image } of state.movie.mean(Number($("plane").value))) {
    if (mine !== reading || $("view").value !== "mean") return;
    state.image = image;
    $("status").textContent = `mean of ${frames} frames`;
    draw();
  }
  autoContrast();
}

async function showTrace() {
  const mine = ++reading;
  const { left, right, top, bottom } = state.region;
  for await (const trace of state.movie.trace(Number($("plane").value), state.region)) {
    if (mine !== reading) return;
    state.trace = trace;
    $("status").textContent = `x ${left} to ${right}, y ${top} to ${bottom}: ${trace.length} frames`;
    drawTrace();
  }
}

function show() {
  return $("view").value === "mean" ? showMean() : showFrame(Number($("time").value));
}

async function open(url) {
  const start = performance.now();
  $("status").textContent = "opening ...";
  const movie = (state.movie = await MovieView.open(url));
  $("time").max = movie.frames - 1;
  $("plane").max = movie.planes - 1;
  $("planes").hidden = movie.planes === 1;
  $("unit").querySelector("[value=photons]").disabled = !movie.photons;
  document.querySelector("main").hidden = false;
  await showFrame(0);
  autoContrast();
  const took = (performance.now() - start) / 1000;
  $("status").textContent = `${movie.array.shape.join(" x ")} ${movie.array.dtype}; first frame after ${took.toFixed(2)} s`;
}

// Controls

function pixelAt(event) {
  const box = $("image").getBoundingClientRect();
  const area = imageArea();
  const scale = $("image").width / box.width;
  const to = (position, from, size, pixels) =>
    Math.max(0, Math.min(pixels, Math.round(((position * scale - from) / size) * pixels)));
  return [
    to(event.clientX - box.left, area.left, area.width, state.movie.width),
    to(event.clientY - box.top, area.top, area.height, state.movie.height),
  ];
}

function followRectangle(down) {
  const [x, y] = pixelAt(down);
  const canvas = $("image");
  canvas.setPointerCapture(down.pointerId);
  canvas.onpointermove = (event) => {
    const [toX, toY] = pixelAt(event);
    const [left, right, top, bottom] = [Math.min(x, toX), Math.max(x, toX), Math.min(y, toY), Math.max(y, toY)];
    state.region = left < right && top < bottom ? { left, right, top, bottom } : null;
    draw();
  };
  canvas.onpointerup = guarded(() => {
    canvas.onpointermove = canvas.onpointerup = null;
    return state.region && showTrace();
  });
}

$("play").onclick = guarded(play);
$("time").oninput = guarded(() => {
  $("view").value = "frame";
  return showFrame(Number($("time").value));
});
$("view").onchange = guarded(show);
$("plane").onchange = guarded(show);
$("auto").onclick = autoContrast;
$("low").onchange = $("high").onchange = () => {
  [state.low, state.high] = [fromUnit(Number($("low").value)), fromUnit(Number($("high").value))];
  draw();
};
$("unit").onchange = () => {
  showContrast();
  drawTrace();
};
$("image").onpointerdown = followRectangle;

const asked = new URLSearchParams(location.search).get("url");
if (asked) {
  $("url").value = new URL(asked, location.href).href; // an address relative to this page is one, too
  guarded(open)($("url").value);
}
