// The page: labels a picture and shows the attention of a point, through TensorFlow Serving's REST API.

import { heatFigure } from "./attention.js";
import { decodeLabels, readPicture } from "./picture.js";
import { Refusal, currentVersion, predict } from "./server.js";

const $ = (id) => document.getElementById(id);
const NO_CLASS = [128, 128, 128];

let shown = null; // what is on the screen: {picture, version, labels, blob}
let point = null; // {x, y} of the mark, in pixels of the picture
let chosen = null; // label that the legend has been told to keep in view
let asked = 0; // number of the newest question; answers to older ones are dropped

if (document.body.dataset.model) {
  // Beside the page, also where a proxy has put both under a path.
  $("server").value = new URL(`v1/models/${document.body.dataset.model}`, location.href.replace(/[?#].*/, "")).href;
}

// One question to the server at a time on the screen: says what goes on, and what went wrong.
async function ask(doing, work) {
  const number = ++asked;
  say(doing);
  document.body.setAttribute("aria-busy", "true");
  try {
    const done = await work(() => number === asked);
    if (number === asked) say(done);
  } catch (error) {
    if (!(error instanceof Refusal)) console.error(error);
    if (error.status === 401) $("token-field").hidden = false;
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
    const picture = await readPicture(file);
    return current() ? label(picture, current) : "";
  });
}

async function label(picture, current) {
  const started = performance.now();
  const { bitmap } = picture;
  showPicture(picture);
  let version = await currentVersion($("server").value, $("token").value);
  check(version.metadata, bitmap);
  const request = { signature_name: "predict_bytes", instances: [{ b64: picture.data }] };
  let answer;
  try {
    answer = await predict(version.url, $("token").value, request);
  } catch (error) {
    if (error.status !== 404) throw error;
    // A newer version has taken its place since the server was asked which one there is.
    version = await currentVersion($("server").value, $("token").value);
    answer = await predict(version.url, $("token").value, request);
  }
  const decoded = await decodeLabels(answer.predictions[0].b64, bitmap);
  if (!current()) return "";
  shown = { picture, version, ...decoded };
  const count = showLabels();
  const seconds = ((performance.now() - started) / 1000).toFixed(1);
  const classes = count === 1 ? "one class" : `${count} classes`;
  return `${bitmap.width} × ${bitmap.height} pixels, ${classes}, ${seconds} s, version ${version.number}.`;
}

// Before minutes of work: what the server would refuse.
function check({ max_pixels: most, channels, dtype, mean }, { width, height }) {
  if ((channels ?? mean.length) !== 3 || (dtype ?? "uint8") !== "uint8") {
    throw new Refusal(`This model is for images of ${channels} channels (${dtype}); this page shows photographs alone.`);
  }
  if (width * height > most) {
    const mega = (pixels) => Number((pixels / 1e6).toPrecision(2));
    throw new Refusal(`The picture has ${mega(width * height)} megapixels, the model takes at most ${mega(most)}: reduce it first.`);
  }
}

function showPicture({ bitmap }) {
  shown = point = chosen = null;
  for (const id of ["image", "overlay"]) {
    $(id).width = bitmap.width;
    $(id).height = bitmap.height;
  }
  $("image").getContext("2d").drawImage(bitmap, 0, 0);
  // As wide as there is room, as long as it stays on the screen.
  $("stage").style.width = `min(100%, ${75 * bitmap.width / bitmap.height}vh)`;
  $("drop").classList.add("filled");
  $("again").hidden = $("stage").hidden = false;
  for (const id of ["hint", "marker", "tip", "attention", "side", "keys"]) $(id).hidden = true;
}

function nameOf(label) {
  return shown.version.metadata.class_names[label] ?? `no class (${label})`;
}

function colorOf(label) {
  return shown.version.metadata.colors[label] ?? NO_CLASS;
}

function showLabels() {
  const counts = new Array(256).fill(0);
  for (const label of shown.labels) counts[label]++;
  const present = counts.map((count, label) => [label, count]).filter(([, count]) => count);
  present.sort((a, b) => b[1] - a[1]);
  $("legend").replaceChildren(...present.map(([label, count]) => {
    const item = document.createElement("li");
    const button = element("button", "class");
    button.type = "button";
    button.dataset.label = label;
    button.setAttribute("aria-pressed", "false");
    button.append(element("span", "swatch"), element("span", "name", nameOf(label)),
      element("span", "share", `${(100 * count / shown.labels.length).toFixed(1)} %`));
    button.firstChild.style.background = `rgb(${colorOf(label)})`;
    item.append(button);
    return item;
  }));
  paint(null);
  $("side").hidden = false;
  $("keys").hidden = !shown.version.metadata.directions.length;
  return present.length;
}

// The overlay; with a label that class alone, the others faint.
function paint(label) {
  const { width, height } = $("overlay");
  const pixels = new Uint32Array(width * height);
  const table = new Uint32Array(256);
  const bytes = new Uint8Array(table.buffer);
  for (let each = 0; each < 256; each++) {
    bytes.set([...colorOf(each), label === null || label === each ? 255 : 40], 4 * each);
  }
  for (let index = 0; index < pixels.length; index++) pixels[index] = table[shown.labels[index]];
  const image = new ImageData(new Uint8ClampedArray(pixels.buffer), width, height);
  $("overlay").getContext("2d").putImageData(image, 0, 0);
  for (const button of $("legend").querySelectorAll("button")) {
    button.classList.toggle("in-view", Number(button.dataset.label) === label);
    button.setAttribute("aria-pressed", String(Number(button.dataset.label) === chosen));
  }
}

function element(tag, className, text = "") {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}

// {x, y} in the picture, or null.
function pixelAt({ clientX, clientY }) {
  const box = $("image").getBoundingClientRect();
  const across = (clientX - box.left) / box.width;
  const down = (clientY - box.top) / box.height;
  if (!(across >= 0 && across < 1 && down >= 0 && down < 1)) return null;
  return { x: Math.floor(across * $("image").width), y: Math.floor(down * $("image").height) };
}

function showTip(event) {
  const at = shown && pixelAt(event);
  $("tip").hidden = !at;
  if (!at) return;
  const label = shown.labels[at.y * $("image").width + at.x];
  $("tip").textContent = nameOf(label);
  const box = $("stage").getBoundingClientRect();
  const [across, down] = [event.clientX - box.left, event.clientY - box.top];
  $("tip").style.left = `${Math.min(across + 14, Math.max(0, box.width - $("tip").offsetWidth))}px`;
  $("tip").style.top = `${Math.max(0, down - 34)}px`;
  for (const button of $("legend").querySelectorAll("button")) {
    button.classList.toggle("under", Number(button.dataset.label) === label);
  }
}

function moveMark({ x, y }) {
  const { width, height } = $("image");
  point = { x: Math.min(Math.max(x, 0), width - 1), y: Math.min(Math.max(y, 0), height - 1) };
  $("marker").style.left = `${100 * (point.x + 0.5) / width}%`;
  $("marker").style.top = `${100 * (point.y + 0.5) / height}%`;
  $("marker").hidden = false;
}

function showAttention() {
  const { picture, version } = shown;
  const { x, y } = point;
  ask(`Attention at ${x}, ${y} …`, async (current) => {
    let answer;
    try {
      answer = await predict(version.url, $("token").value, {
        signature_name: "attention",
        inputs: { image_bytes: [{ b64: picture.data }], points: [[[x, y]]] },
      });
    } catch (error) {
      if (error.status !== 404) throw error;
      const done = await label(picture, current);
      return `The model has been replaced, so the image was labelled anew. ${done}`;
    }
    if (!current()) return "";
    const { outputs } = answer;
    $("maps").replaceChildren(...version.metadata.directions.map((direction) =>
      heatFigure(direction, picture.bitmap, outputs[direction][0][0], outputs.image_box[0], x, y)));
    const name = nameOf(shown.labels[y * $("image").width + x]);
    $("attention-title").textContent = `Attention of the point at ${x}, ${y} (${name})`;
    $("attention").hidden = false;
    return `Attention at ${x}, ${y}.`;
  });
}

function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

async function saveOverlay() {
  const { width, height } = $("image");
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d");
  context.drawImage($("image"), 0, 0);
  context.globalAlpha = $("opacity").value / 100;
  context.drawImage($("overlay"), 0, 0);
  save(await canvas.convertToBlob({ type: "image/png" }), `${shown.picture.name}_overlay.png`);
}

for (const id of ["file", "another"]) {
  $(id).addEventListener("change", (event) => {
    open(event.target.files[0]);
    event.target.value = "";
  });
}
const setOpacity = () => { $("overlay").style.opacity = $("opacity").value / 100; };
$("opacity").addEventListener("input", setOpacity);
setOpacity();
$("save-labels").addEventListener("click", () => save(shown.blob, `${shown.picture.name}_labels.png`));
$("save-overlay").addEventListener("click", saveOverlay);

const hasAttention = () => shown && shown.version.metadata.directions.length > 0;
$("stage").addEventListener("pointermove", showTip);
$("stage").addEventListener("pointerleave", () => {
  $("tip").hidden = true;
  for (const button of $("legend").querySelectorAll(".under")) button.classList.remove("under");
});
$("stage").addEventListener("click", (event) => {
  const at = hasAttention() && pixelAt(event);
  if (!at) return;
  moveMark(at);
  showAttention();
});
$("stage").addEventListener("keydown", (event) => {
  if (!hasAttention()) return;
  const { width, height } = $("image");
  const { x, y } = point ?? { x: width >> 1, y: height >> 1 };
  const step = Math.max(1, Math.round(Math.max(width, height) / (event.shiftKey ? 10 : 50)));
  const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
  if (event.key in moves) {
    const [right, down] = point ? moves[event.key] : [0, 0];
    moveMark({ x: x + right, y: y + down });
  } else if (event.key === "Enter" || event.key === " ") {
    moveMark({ x, y });
    showAttention();
  } else {
    return;
  }
  event.preventDefault(); // the page would scroll
});

const labelOf = (event) => {
  const button = event.target.closest("button[data-label]");
  return button ? Number(button.dataset.label) : chosen;
};
for (const name of ["pointerover", "focusin"]) $("legend").addEventListener(name, (event) => paint(labelOf(event)));
for (const name of ["pointerleave", "focusout"]) $("legend").addEventListener(name, () => shown && paint(chosen));
$("legend").addEventListener("click", (event) => {
  const label = labelOf(event);
  chosen = chosen === label ? null : label;
  paint(chosen);
});

for (const name of ["dragenter", "dragover"]) {
  document.addEventListener(name, (event) => { event.preventDefault(); $("drop").classList.add("over"); });
}
document.addEventListener("dragleave", () => $("drop").classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  $("drop").classList.remove("over");
  open(event.dataTransfer.files[0]);
});
