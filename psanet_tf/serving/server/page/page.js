// The page: labels a picture and shows the attention of a point, by whatever model it is started with.

import { heatFigure } from "./attention.js";
import { Refusal } from "./refusal.js";

const $ = (id) => document.getElementById(id);
const NO_CLASS = [128, 128, 128];

let model = null;
let picture = null; // on the stage: {name, bitmap, ...}
let shown = null; // its answer: {picture, metadata, labels, blob, ...}
let point = null; // {x, y} of the mark, in pixels of the picture
let chosen = null; // label that the legend has been told to keep in view
let asked = 0; // number of the newest question; answers to older ones are dropped
let stop = new AbortController(); // of the newest question

// Begins to answer people, by a model:
//   start(page): puts its fields into page.fields; page.ask, page.labelAgain and page.say are the functions below.
//   takes(file): whether a dropped file is for the model, not a picture; optional.
//   readPicture(file) -> {name, bitmap, ...}, in which the pixels shown are the pixels that will be labelled.
//   label(picture, task) -> {labels: Uint8Array, blob: a PNG of them, metadata, by: in words}; `metadata` are those of
//     the export, of which class_names, colors and directions are looked at; `task` as of `ask`.
//   attention(answer of `label` with its picture, x, y, task) -> {maps: [[direction, [h][w]], ...], box: [top, left,
//     bottom, right] of the picture in map positions}; null where what answered is there no more.
// Refusals that any of them throws are shown as they are.
export function start(startedWith) {
  model = startedWith;
  model.start({ fields: $("fields"), ask, labelAgain, say });
  listen();
}

// One question at a time on the screen: says what goes on, and what went wrong. A newer one stops the older.
//   work({current(), signal, progress(text, share)}) -> what to say in the end
async function ask(doing, work) {
  const number = ++asked;
  stop.abort();
  stop = new AbortController();
  const { signal } = stop;
  const current = () => number === asked;
  const progress = (text, share) => { if (current()) say(text, false, share); };
  say(doing);
  busy(true);
  try {
    const done = await work({ current, signal, progress });
    if (current()) say(done);
  } catch (error) {
    if (!(error instanceof Refusal) && !signal.aborted) console.error(error);
    if (current()) say(error.message, true);
  } finally {
    if (current()) busy(false);
  }
}

function cancel() {
  asked++;
  stop.abort();
  busy(false);
  say("Cancelled.");
}

function busy(is) {
  if (is) document.body.setAttribute("aria-busy", "true");
  else document.body.removeAttribute("aria-busy");
  $("cancel").hidden = !is;
}

function say(text, error = false, share = null) {
  $("status").textContent = text;
  $("status").classList.toggle("error", error);
  $("progress").hidden = share === null;
  if (share !== null) $("progress").value = share;
}

function open(file) {
  if (!file) return;
  if (model.takes?.(file)) return;
  ask(`Labelling ${file.name} …`, async (task) => {
    const read = await model.readPicture(file);
    return task.current() ? label(read, task) : "";
  });
}

// The picture on the stage, if there is one, and after it what is said in the end.
function labelAgain(task) {
  return picture && label(picture, task);
}

async function label(read, task) {
  const started = performance.now();
  showPicture(read);
  const answer = await model.label(read, task);
  if (!task.current()) return "";
  shown = { ...answer, picture: read };
  const count = showLabels();
  const seconds = ((performance.now() - started) / 1000).toFixed(1);
  const classes = count === 1 ? "one class" : `${count} classes`;
  const { width, height } = read.bitmap;
  return `${width} × ${height} pixels, ${classes}, ${seconds} s, ${answer.by}.`;
}

function showPicture(read) {
  shown = point = chosen = null;
  picture = read;
  const { bitmap } = read;
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
  return shown.metadata.class_names[label] ?? `no class (${label})`;
}

function colorOf(label) {
  return shown.metadata.colors[label] ?? NO_CLASS;
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
  $("keys").hidden = !shown.metadata.directions.length;
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
  const { x, y } = point;
  ask(`Attention at ${x}, ${y} …`, async (task) => {
    const answer = await model.attention(shown, x, y, task);
    if (!task.current()) return "";
    if (answer === null) {
      const done = await label(picture, task);
      return `The model has been replaced, so the image was labelled anew. ${done}`;
    }
    $("maps").replaceChildren(...answer.maps.map(([direction, map]) =>
      heatFigure(direction, picture.bitmap, map, answer.box, x, y)));
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

function listen() {
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
  $("cancel").addEventListener("click", cancel);

  const hasAttention = () => shown && shown.metadata.directions.length > 0;
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
}
