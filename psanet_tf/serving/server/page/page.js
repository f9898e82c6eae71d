// Labels an image and shows the attention of a clicked point, through TensorFlow Serving's REST API.
"use strict";

const $ = (id) => document.getElementById(id);
const CAPTIONS = {
  collect: "Collect: where this point gathers its context from",
  distribute: "Distribute: to where this point hands out its own features",
};
// Of a heat map, from little to much weight: transparent, dark red, orange, pale yellow.
const HEAT = [[80, 0, 20, 0], [180, 20, 30, 150], [250, 140, 20, 210], [255, 250, 200, 235]];

let metadata = null; // of the model at `$("server").value`
let metadataOf = null;
let image = null; // {data: base64, bitmap}
let asked = 0; // number of the newest question; answers to older ones are dropped

$("server").value = new URLSearchParams(location.search).get("server") ||
  (document.body.dataset.model ? new URL(`v1/models/${document.body.dataset.model}`, location.href).href : "");

async function predict(request) {
  const address = $("server").value.replace(/\/+$/, "");
  if (!address) throw new Error("Enter the model's address first, such as http://127.0.0.1:8501/v1/models/psanet.");
  let response;
  try {
    response = await fetch(`${address}:predict`, { method: "POST", body: JSON.stringify(request) });
  } catch {
    throw new Error(`No answer from ${address}. Is the server running, and does it allow this page (CORS)?`);
  }
  const answer = await response.json().catch(() => ({ error: `status ${response.status}` }));
  if (!response.ok) throw new Error(answer.error);
  return answer;
}

async function loadMetadata() {
  if (metadataOf !== $("server").value) {
    const answer = await predict({ signature_name: "metadata", instances: ["all"] });
    metadata = JSON.parse(answer.predictions[0]);
    metadataOf = $("server").value;
  }
  return metadata;
}

// One question to the server at a time on the screen: says what goes on, and shows an error as the server words it.
async function ask(doing, work) {
  const number = ++asked;
  say(doing);
  document.body.setAttribute("aria-busy", "true");
  try {
    const done = await work(() => number === asked);
    if (number === asked) say(done);
  } catch (error) {
    if (number === asked) say(error.message, true);
  } finally {
    if (number === asked) document.body.removeAttribute("aria-busy");
  }
}

function say(text, error = false) {
  $("status").textContent = text;
  $("status").classList.toggle("error", error);
}

function open(file) {
  if (!file) return;
  ask(`Labelling ${file.name} …`, async (current) => {
    const started = performance.now();
    // Labels are for the image as it is to be seen, so an orientation tag is followed.
    const bitmap = await createImageBitmap(file, { imageOrientation: "from-image" }).catch(() => {
      throw new Error(`${file.name} is not an image that this browser can read.`);
    });
    const data = await toBase64(await asJpegOrPng(file, bitmap));
    if (!current()) return "";
    image = { data, bitmap };
    showImage(bitmap);
    const { class_names: names, colors } = await loadMetadata();
    const answer = await predict({ signature_name: "predict_bytes", instances: [{ b64: data }] });
    const labels = await decodeLabels(answer.predictions[0].b64);
    if (!current()) return "";
    const present = showLabels(labels, names, colors);
    const seconds = ((performance.now() - started) / 1000).toFixed(1);
    const hint = metadata.directions.length ? " Click a point to see its attention." : "";
    return `${bitmap.width} × ${bitmap.height} pixels, ${present} classes, ${seconds} s.${hint}`;
  });
}

async function asJpegOrPng(file, bitmap) {
  if (file.type === "image/jpeg" || file.type === "image/png") return file;
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  canvas.getContext("2d").drawImage(bitmap, 0, 0);
  return canvas.convertToBlob({ type: "image/png" });
}

function toBase64(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });
}

function showImage(bitmap) {
  for (const id of ["image", "overlay"]) {
    $(id).width = bitmap.width;
    $(id).height = bitmap.height;
  }
  $("image").getContext("2d").drawImage(bitmap, 0, 0);
  // As wide as there is room, as long as it stays on the screen.
  $("stage").style.width = `min(100%, ${75 * bitmap.width / bitmap.height}vh)`;
  $("drop").classList.add("filled");
  $("hint").hidden = true;
  $("again").hidden = false;
  $("stage").hidden = false;
  $("marker").hidden = true;
  $("attention").hidden = true;
  $("side").hidden = true;
}

// Uint8ClampedArray RGBA of a grey PNG: every channel is the label.
async function decodeLabels(base64) {
  const blob = await (await fetch(`data:image/png;base64,${base64}`)).blob();
  const bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d");
  context.drawImage(bitmap, 0, 0);
  return context.getImageData(0, 0, bitmap.width, bitmap.height);
}

function showLabels(labels, names, colors) {
  const counts = new Map();
  const pixels = labels.data;
  for (let i = 0; i < pixels.length; i += 4) {
    const label = pixels[i];
    counts.set(label, (counts.get(label) || 0) + 1);
    const color = colors[label];
    pixels[i] = color[0];
    pixels[i + 1] = color[1];
    pixels[i + 2] = color[2];
  }
  $("overlay").getContext("2d").putImageData(labels, 0, 0);
  const ordered = [...counts].sort((a, b) => b[1] - a[1]);
  $("legend").replaceChildren(...ordered.map(([label, count]) => {
    const item = document.createElement("li");
    item.append(element("span", "swatch"), element("span", "name", names[label]),
      element("span", "share", `${(400 * count / pixels.length).toFixed(1)} %`));
    item.firstChild.style.background = `rgb(${colors[label]})`;
    return item;
  }));
  $("side").hidden = false;
  return ordered.length;
}

function element(tag, className, text = "") {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}

function showAttentionAt(event) {
  if (!metadata || !metadata.directions.length) return;
  const box = $("image").getBoundingClientRect();
  const across = (event.clientX - box.left) / box.width;
  const down = (event.clientY - box.top) / box.height;
  if (across < 0 || across >= 1 || down < 0 || down >= 1) return;
  const { bitmap, data } = image;
  const x = Math.floor(across * bitmap.width);
  const y = Math.floor(down * bitmap.height);
  $("marker").style.left = `${100 * across}%`;
  $("marker").style.top = `${100 * down}%`;
  $("marker").hidden = false;
  ask(`Attention at ${x}, ${y} …`, async (current) => {
    const answer = await predict({
      signature_name: "attention",
      inputs: { image_bytes: [{ b64: data }], points: [[[x, y]]] },
    });
    if (!current()) return "";
    const { outputs } = answer;
    $("maps").replaceChildren(...metadata.directions.map((direction) =>
      heatFigure(direction, outputs[direction][0][0], outputs.image_box[0], x, y)));
    $("attention").hidden = false;
    return `Attention at ${x}, ${y}.`;
  });
}

function heatFigure(direction, rows, [top, left, bottom, right], x, y) {
  const height = rows.length;
  const width = rows[0].length;
  const most = Math.max(...rows.flat());
  // Where the image reaches beyond the map, the map goes on as it ends.
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
  canvas.width = image.bitmap.width;
  canvas.height = image.bitmap.height;
  canvas.dataset.direction = direction;
  const context = canvas.getContext("2d");
  context.filter = "grayscale(1) brightness(.6)";
  context.drawImage(image.bitmap, 0, 0);
  context.filter = "none";
  context.imageSmoothingQuality = "high";
  // Map row r has its centre at r; on the canvas that is r + 1/2 below the border.
  const start = border + 0.5;
  context.drawImage(map, left + start, top + start, right - left, bottom - top, 0, 0, canvas.width, canvas.height);
  const radius = Math.max(4, canvas.width / 80);
  context.beginPath();
  context.arc(x + 0.5, y + 0.5, radius, 0, 2 * Math.PI);
  context.lineWidth = radius / 2.5;
  context.strokeStyle = "#2cf";
  context.stroke();
  const figure = document.createElement("figure");
  figure.append(canvas, element("figcaption", "", CAPTIONS[direction]));
  return figure;
}

function heat(share) {
  const place = Math.sqrt(share) * (HEAT.length - 1); // the root shows small weights too
  const index = Math.min(Math.floor(place), HEAT.length - 2);
  const part = place - index;
  return HEAT[index].map((value, channel) => value + part * (HEAT[index + 1][channel] - value));
}

for (const id of ["file", "another"]) {
  $(id).addEventListener("change", (event) => {
    open(event.target.files[0]);
    event.target.value = "";
  });
}
$("opacity").addEventListener("input", () => { $("overlay").style.opacity = $("opacity").value / 100; });
$("overlay").style.opacity = $("opacity").value / 100;
$("stage").addEventListener("click", showAttentionAt);
for (const name of ["dragenter", "dragover"]) {
  document.addEventListener(name, (event) => { event.preventDefault(); $("drop").classList.add("over"); });
}
document.addEventListener("dragleave", () => $("drop").classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  $("drop").classList.remove("over");
  open(event.dataTransfer.files[0]);
});
