// Loads a model and runs it, off the page's thread. One question after the other; a stop is heard between two passes.

import { attentionOf, labelsOf } from "./protocol.js";
import { readMetadata } from "./metadata.js";
import { Refusal } from "./refusal.js";
import { checkPicture } from "./picture.js";
import * as ort from "./ort.js";

const MOST_THREADS = 8;
ort.env.wasm.wasmPaths = { wasm: new URL("ort-wasm-simd-threaded.wasm", import.meta.url).href };
// Threads share memory, which browsers give to pages with two headers only.
ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(navigator.hardwareConcurrency, MOST_THREADS) : 1;

let loaded = null; // {name, metadata, session, number}
let count = 0; // of the models so far
let before = Promise.resolve(); // the question before
const stopped = new Set(); // numbers of questions that nobody waits for any more

self.addEventListener("message", ({ data }) => {
  if (data.kind === "stop") stopped.add(data.id);
  else before = before.then(() => answer(data));
});

async function answer({ id, kind, ...content }) {
  const task = {
    // Lets messages in, and ends the question if one of them says so.
    async rest() {
      await new Promise((resolve) => setTimeout(resolve));
      if (stopped.has(id)) throw new Stopped();
    },
    progress: (progress) => self.postMessage({ id, progress }),
  };
  try {
    await task.rest();
    const [result, moved] = await { open, label, attention }[kind](content, task);
    self.postMessage({ id, answer: result }, moved);
  } catch (error) {
    if (error instanceof Stopped) return;
    const meant = error instanceof Refusal;
    const broken = !meant && isOfMemory(error);
    if (!broken && !meant) console.error(error);
    self.postMessage({ id, refusal: broken ? NO_MEMORY : error.message, broken });
  } finally {
    stopped.delete(id);
  }
}

class Stopped extends Error {}

const NO_MEMORY = "There is not enough memory for this in the browser: choose the model again, and a smaller picture or "
  + "a model that sees less at once.";

// Memory that is used up leaves the runtime in no state to go on. What C++ throws arrives as a number, and says no more.
function isOfMemory(error) {
  const { name, message } = error;
  if (typeof error === "number") return true;
  return name === "RangeError" || /bad_alloc|out of memory|allocat|memory access/i.test(message);
}

async function open({ name, file, url }, task) {
  const bytes = file ? new Uint8Array(await file.arrayBuffer()) : await download(url, name, task);
  const metadata = readMetadata(bytes, name);
  await task.rest();
  const session = await ort.InferenceSession.create(bytes, { executionProviders: ["wasm"] }).catch((error) => {
    if (isOfMemory(error)) throw error;
    throw new Refusal(`${name} cannot be loaded: ${error.message}`);
  });
  await loaded?.session.release();
  loaded = { name, metadata, session, number: ++count };
  return [{ metadata }, []];
}

async function download(url, name, task) {
  const response = await fetch(url).catch(() => {
    throw new Refusal(`${name} could not be fetched: no answer from ${new URL(url).origin}.`);
  });
  if (!response.ok) throw new Refusal(`${name} could not be fetched: the web server answered ${response.status}.`);
  const length = Number(response.headers.get("content-length"));
  const parts = [];
  let received = 0;
  for (let reader = response.body.getReader(); ;) {
    const { done, value } = await reader.read();
    if (done) break;
    parts.push(value);
    received += value.length;
    if (length) task.progress({ share: Math.min(1, received / length) });
  }
  await task.rest();
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}

async function label({ pixels, width, height }, task) {
  const { name, metadata, number } = checkLoaded();
  checkPicture(metadata, { width, height });
  const run = async (crop, size) => {
    const { probabilities } = await ask(crop, size, ["probabilities"]);
    return probabilities.data;
  };
  const labels = await labelsOf(metadata, withoutAlpha(pixels), [height, width], run, task);
  return [{ name, metadata, labels, number }, [labels.buffer]];
}

// null where another model than that of the labels has been loaded.
async function attention({ pixels, width, height, number }) {
  const { metadata } = checkLoaded();
  if (number !== loaded.number) return [null, []];
  const found = await attentionOf(metadata, withoutAlpha(pixels), [height, width], ask);
  return [found, Object.values(found.matrices).map((matrix) => matrix.buffer)];
}

function checkLoaded() {
  if (!loaded) throw new Refusal("Choose a model first: an .onnx file that psanet export wrote.");
  return loaded;
}

// {output name: tensor} for stored values uint8 [height, width, 3].
function ask(values, size, names) {
  return loaded.session.run({ images: new ort.Tensor("uint8", values, [1, ...size, 3]) }, names);
}

function withoutAlpha(pixels) {
  const values = new Uint8Array((pixels.length / 4) * 3);
  for (let from = 0, to = 0; from < pixels.length; from += 4, to += 3) {
    values[to] = pixels[from];
    values[to + 1] = pixels[from + 1];
    values[to + 2] = pixels[from + 2];
  }
  return values;
}
