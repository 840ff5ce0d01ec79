// A picture or a line in a canvas, with axes.

const MARGIN = { left: 60, right: 10, top: 10, bottom: 45 };

// About five round numbers within a range.
function ticks(low, high) {
  const rough = (high - low) / 5 || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((times) => times * power).find((size) => size >= rough);
  const found = [];
  for (let tick = Math.ceil(low / step) * step; tick <= high + step / 1e6; tick += step) found.push(tick);
  return found;
}

function label(value) {
  return String(Number(value.toPrecision(4)));
}

/** Where the plot lies in its canvas, and what its corners stand for; y grows upwards unless `down`. */
export function plotArea(canvas, x, y, { down = false, square = false } = {}) {
  let width = canvas.width - MARGIN.left - MARGIN.right;
  let height = canvas.height - MARGIN.top - MARGIN.bottom;
  if (square) { // as high as wide, for pixels
    const scale = Math.min(width / (x[1] - x[0]), height / (y[1] - y[0]));
    [width, height] = [scale * (x[1] - x[0]), scale * (y[1] - y[0])];
  }
  const { left, top } = MARGIN;
  const toX = (value) => left + ((value - x[0]) / (x[1] - x[0])) * width;
  const part = (value) => (value - y[0]) / (y[1] - y[0]);
  const toY = (value) => top + (down ? part(value) : 1 - part(value)) * height;
  return { left, top, width, height, x, y, toX, toY };
}

export function drawAxes(canvas, area, xLabel, yLabel) {
  const context = canvas.getContext("2d");
  const { left, top, width, height } = area;
  context.strokeStyle = context.fillStyle = "#222";
  context.font = "13px system-ui, sans-serif";
  context.strokeRect(left, top, width, height);
  context.textAlign = "center";
  context.textBaseline = "top";
  for (const tick of ticks(...area.x)) {
    context.fillRect(area.toX(tick), top + height, 1, 5);
    context.fillText(label(tick), area.toX(tick), top + height + 7);
  }
  context.fillText(xLabel, left + width / 2, top + height + 25);
  context.textAlign = "right";
  context.textBaseline = "middle";
  for (const tick of ticks(...area.y)) {
    context.fillRect(left - 5, area.toY(tick), 5, 1);
    context.fillText(label(tick), left - 8, area.toY(tick));
  }
  context.save();
  context.translate(12, top + height / 2);
  context.rotate(-Math.PI / 2);
  context.textAlign = "center";
  context.fillText(yLabel, 0, 0);
  context.restore();
}

/** Values in grey, `low` black and `high` white. */
export function drawImage(canvas, area, values, width, height, low, high) {
  const pixels = new ImageData(width, height);
  const grey = new Uint32Array(pixels.data.buffer);
  const scale = 255 / (high - low || 1);
  for (let i = 0; i < values.length; i++) {
    const shade = Math.max(0, Math.min(255, (Number(values[i]) - low) * scale)) & 255;
    grey[i] = 0xff000000 | (shade << 16) | (shade << 8) | shade;
  }
  const buffer = new OffscreenCanvas(width, height);
  buffer.getContext("2d").putImageData(pixels, 0, 0);
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingEnabled = false;
  context.drawImage(buffer, area.left, area.top, area.width, area.height);
}

export function drawLine(canvas, area, xs, ys) {
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, canvas.width, canvas.height);
  context.strokeStyle = "#0a58ca";
  context.beginPath();
  ys.forEach((y, i) => context.lineTo(area.toX(xs(i)), area.toY(y)));
  context.stroke();
}

export function drawRectangle(canvas, area, { left, right, top, bottom }) {
  const context = canvas.getContext("2d");
  context.strokeStyle = "#ffb000";
  context.lineWidth = 2;
  const [x, y] = [area.toX(left), area.toY(top)];
  context.strokeRect(x, y, area.toX(right) - x, area.toY(bottom) - y);
  context.lineWidth = 1;
}
