// Attention maps as heat over a picture, with their scale.

export const CAPTIONS = {
  collect: "Collect: where this point gathers its context from",
  distribute: "Distribute: to where this point hands out its own features",
};
// From little to much weight: transparent, dark red, orange, pale yellow.
const HEAT = [[80, 0, 20, 0], [180, 20, 30, 150], [250, 140, 20, 210], [255, 250, 200, 235]];

// A <figure> of one map.
//   bitmap: the picture; rows: the map, [h][w]; box: [top, left, bottom, right] of the picture in map positions;
//   x, y: the point, in the picture's pixels.
export function heatFigure(direction, bitmap, rows, [top, left, bottom, right], x, y) {
  const height = rows.length;
  const width = rows[0].length;
  const most = Math.max(...rows.flat());
  // Where the picture reaches beyond the map, the map goes on as it ends.
  const border = Math.max(0, Math.ceil(Math.max(-left, -top, right + 1 - width, bottom + 1 - height) - 0.5));
  const map = new OffscreenCanvas(width + 2 * border, height + 2 * border);
  const pixels = new ImageData(map.width, map.height);
  const inside = (index, length) => Math.min(Math.max(index - border, 0), length - 1);
  for (let row = 0; row < map.height; row++) {
    for (let column = 0; column < map.width; column++) {
      const weight = rows[inside(row, height)][inside(column, width)];
      pixels.data.set(heat(most > 0 ? weight / most : 0), 4 * (row * map.width + column));
    }
  }
  map.getContext("2d").putImageData(pixels, 0, 0);
  const canvas = document.createElement("canvas");
  canvas.width = bitmap.width;
  canvas.height = bitmap.height;
  canvas.dataset.direction = direction;
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", CAPTIONS[direction]);
  const context = canvas.getContext("2d");
  context.filter = "grayscale(1) brightness(.6)";
  context.drawImage(bitmap, 0, 0);
  context.filter = "none";
  context.imageSmoothingQuality = "high";
  // Map row r has its centre at r; on the canvas that is r + 1/2 below the border.
  const start = border + 0.5;
  context.drawImage(map, left + start, top + start, right - left, bottom - top, 0, 0, canvas.width, canvas.height);
  ring(context, x + 0.5, y + 0.5, Math.max(4, canvas.width / 80));
  const figure = document.createElement("figure");
  const caption = document.createElement("figcaption");
  caption.textContent = CAPTIONS[direction];
  figure.append(canvas, scale(most), caption);
  return figure;
}

// Black around white: no colour beneath hides it.
function ring(context, x, y, radius) {
  for (const [color, width] of [["#000", radius / 1.5], ["#fff", radius / 3]]) {
    context.beginPath();
    context.arc(x, y, radius, 0, 2 * Math.PI);
    context.lineWidth = width;
    context.strokeStyle = color;
    context.stroke();
  }
}

// The colours from no weight to the largest, with numbers.
function scale(most) {
  const element = document.createElement("div");
  element.className = "scale";
  element.title = "Weight of a position";
  const bar = document.createElement("canvas");
  bar.width = 256;
  bar.height = 1;
  const row = new ImageData(256, 1);
  for (let column = 0; column < 256; column++) row.data.set(heat((column / 255) ** 2), 4 * column);
  bar.getContext("2d").putImageData(row, 0, 0);
  const numbers = document.createElement("div");
  numbers.className = "numbers";
  // The colours follow the root of the weight.
  for (const share of [0, 0.25, 1]) {
    const number = document.createElement("span");
    number.textContent = Number((most * share).toPrecision(2));
    numbers.append(number);
  }
  element.append(bar, numbers);
  return element;
}

function heat(share) {
  const place = Math.sqrt(share) * (HEAT.length - 1); // the root shows small weights too
  const index = Math.min(Math.floor(place), HEAT.length - 2);
  const part = place - index;
  return HEAT[index].map((value, channel) => value + part * (HEAT[index + 1][channel] - value));
}
