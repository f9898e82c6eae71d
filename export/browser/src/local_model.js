// A model that runs in this browser, in a worker: what the page asks.

import { greyPng } from "./grey_png.js";
import { openPicture } from "./picture.js";
import { Refusal } from "./refusal.js";
import { roundHalfEven } from "./resize.js";
import { WorkerClient } from "./worker_client.js";

const FIELDS = `
  <label class="button">Choose a model<input id="model-file" type="file" accept=".onnx"></label>
  <span id="model-name"></span>`;
const WELCOME = "Choose a model first: an .onnx file that psanet export wrote. Nothing leaves this computer.";
// A function with one instruction of 128-bit WebAssembly.
const SIMD = [
  0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11,
];

export class LocalModel {
  worker = new WorkerClient(new URL("worker.js", import.meta.url));
  readPicture = openPicture;

  start(page) {
    this.page = page;
    page.fields.innerHTML = FIELDS;
    this.name = page.fields.querySelector("#model-name");
    page.fields.querySelector("#model-file").addEventListener("change", (event) => {
      if (event.target.files[0]) this.open({ file: event.target.files[0] });
      event.target.value = "";
    });
    const given = new URLSearchParams(location.search).get("model");
    if (given) this.open({ url: new URL(given, location.href).href });
    else page.say(WELCOME);
  }

  takes(file) {
    if (!/\.onnx$/i.test(file.name)) return false;
    this.open({ file });
    return true;
  }

  // Loads {file} or {url}; what is on the stage is labelled by it.
  open(source) {
    const name = source.file?.name ?? decodeURIComponent(new URL(source.url).pathname.split("/").pop());
    this.page.ask(`Loading ${name} …`, async (task) => {
      checkBrowser();
      const progress = ({ share }) => task.progress(`Loading ${name} …`, share);
      const { metadata } = await this.worker.ask("open", { ...source, name }, { ...task, progress });
      this.name.textContent = name;
      return (await this.page.labelAgain(task)) ?? `${name}: ${inWords(metadata)}. Choose an image, or drop one below.`;
    });
  }

  async label(picture, task) {
    const { width, height } = picture.bitmap;
    const progress = ({ done, total }) => {
      task.progress(`Labelling ${picture.name}: ${done} of ${total} passes …`, done / total);
    };
    const answer = await this.worker.ask("label", { ...pixelsOf(picture), name: picture.name }, { ...task, progress });
    const blob = await greyPng(answer.labels, width, height);
    return { ...answer, blob, by: answer.name };
  }

  // The network sees a picture once; then every point is at hand.
  async attention(answer, x, y, task) {
    const { picture, number } = answer;
    answer.attention ??= await this.worker.ask("attention", { ...pixelsOf(picture), number }, task);
    if (answer.attention === null) return null;
    const { matrices, mapSize: [height, width], place, box } = answer.attention;
    const position = [y, x].map((coordinate, axis) => {
      const inInput = (coordinate + 0.5) * place.scale[axis] - 0.5 + place.offset[axis];
      const index = roundHalfEven((inInput - place.first[axis]) / place.step[axis]);
      return Math.min(Math.max(index, 0), [height, width][axis] - 1);
    });
    const flat = position[0] * width + position[1];
    const positions = height * width;
    const maps = Object.entries(matrices).map(([direction, matrix]) => {
      // Rows are destinations, columns sources: a row is where the point gathers from, a column whom it informs.
      const collects = direction === "collect";
      const weight = (at) => (collects ? matrix[flat * positions + at] : matrix[at * positions + flat]);
      const rows = Array.from({ length: height }, (_, row) =>
        Array.from({ length: width }, (__, column) => weight(row * width + column)));
      return [direction, rows];
    });
    return { maps, box };
  }
}

function checkBrowser() {
  if (typeof WebAssembly === "undefined" || !WebAssembly.validate(new Uint8Array(SIMD))) {
    throw new Refusal("This browser has no WebAssembly with SIMD, which the labelling needs: take a newer one "
      + "(Chrome 91, Firefox 114, Safari 16.4 or later), and look whether a setting forbids WebAssembly.");
  }
}

// {pixels, width, height} as they are shown, RGBA; what is transparent lies on white, as it does for a server.
function pixelsOf({ bitmap }) {
  const { width, height } = bitmap;
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.fillStyle = "#fff";
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0);
  return { pixels: context.getImageData(0, 0, width, height).data, width, height };
}

function inWords({ class_names: names, input_size: size, scales, flip }) {
  const seen = size ? `crops of ${size[1]} × ${size[0]}` : "pictures in one piece";
  const times = scales.length * (flip ? 2 : 1);
  return `${names.length} classes, ${seen}${times > 1 ? `, each seen ${times} times` : ""}`;
}
