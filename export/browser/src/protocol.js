// Labels pictures of any size by the protocol of a model's metadata: psanet_tf/inference (sliding_window.py,
// whole_image.py, mmseg_protocol.py, attention.py) in JavaScript. Sizes and places are [rows, columns], pictures uint8
// RGB.

import { Refusal } from "./refusal.js";
import { alignedSamples, resize, roundHalfEven, samples } from "./resize.js";

const CHANNELS = 3;
const LONGEST_SIDE = 1025; // that attention is shown of a picture by a network of any size
const LEAST = 1.1754943508222875e-38; // float32's smallest normal number; its logarithm is not infinite
const MOST_BYTES = 3e9; // of probabilities, in the memory of a tab
const REST = 50; // milliseconds of work, after which messages are let in
const float = Math.fround;

// Labels, uint8 [height * width].
//   run(values, size) -> probabilities, float32 [rows * columns * classes], of a crop
//   task: {rest(): lets messages in, progress({done, total})}
export async function labelsOf(metadata, picture, size, run, task) {
  const classes = metadata.class_names.length;
  const views = viewsOf(metadata, size);
  const bytes = views.reduce((sum, { padded }) => sum + 4 * classes * padded[0] * padded[1], 0);
  if (bytes > MOST_BYTES) {
    throw new Refusal(`Labelling this picture takes ${(bytes / 1e9).toFixed(1)} GB for its probabilities, more than a `
      + "tab has: take a smaller one, or a model that was exported with fewer scales or a smaller base_size.");
  }
  const total = views.reduce((sum, { passes }) => sum + passes.length, 0);
  let done = 0;
  task.progress({ done, total });
  for (const view of views) {
    const values = storedPixels(metadata, picture, size, view);
    view.sums = new Float32Array(view.padded[0] * view.padded[1] * classes);
    view.counts = new Uint16Array(view.padded[0] * view.padded[1]);
    for (const pass of view.passes) {
      await task.rest();
      add(view, pass, await run(cropped(values, view, pass), view.crop), classes);
      task.progress({ done: ++done, total });
    }
    divide(view, classes);
  }
  return mostProbable(views, size, classes, task);
}

// {matrices: {direction: float32 [h * w, h * w], rows destinations}, mapSize, place, box} of a picture. The place is
// that of `Placement`: scale (pixels of the network's input per one of the picture), offset, first and step; the box is
// (top, left, bottom, right) of the picture in map positions.
export async function attentionOf(metadata, picture, size, ask) {
  const { resized, offset, input } = placed(size, metadata.input_size);
  const view = { size: resized, padding: offset, padded: input };
  const answer = await ask(storedPixels(metadata, picture, size, view), input, [...metadata.directions, "image_box"]);
  const edges = answer.image_box.data; // of all that the network was given
  const step = [0, 1].map((axis) => input[axis] / (edges[2 + axis] - edges[axis]));
  const first = [0, 1].map((axis) => -0.5 - step[axis] * edges[axis]);
  const inMap = (axis, pixel) => (pixel - 0.5 - first[axis]) / step[axis];
  const box = [0, 1, 2, 3].map((edge) => inMap(edge % 2, offset[edge % 2] + (edge < 2 ? 0 : resized[edge % 2])));
  const scale = [0, 1].map((axis) => resized[axis] / size[axis]);
  const matrices = Object.fromEntries(metadata.directions.map((name) => [name, answer[name].data]));
  const mapSize = answer[metadata.directions[0]].dims.slice(1, 3);
  return { matrices, mapSize, place: { scale, offset, first, step }, box };
}

// How a picture is shown to the network whose attention is asked for.
export function placed(size, inputSize) {
  const scale = inputSize === null
    ? Math.min(1, LONGEST_SIDE / Math.max(...size))
    : Math.min(1, ...inputSize.map((full, axis) => full / size[axis]));
  const resized = size.map((length) => Math.max(1, roundHalfEven(scale * length)));
  const input = inputSize ?? resized.map((length) => Math.max(9, Math.ceil((length - 1) / 8) * 8 + 1));
  return { resized, offset: input.map((length, axis) => Math.floor((length - resized[axis]) / 2)), input };
}

// What is seen of a picture of `size`; probabilities of the views are averaged:
//   size: of the resized picture, padding: rows above and columns left of it, padded: with those all around
//   passes: of crops of the size `crop`, {top, left, mirrored}, in the padded picture
//   rounded: whether resized pixels are rounded at once; logarithms: whether it is logits that are averaged, and
//   resized, aligned or not
export function viewsOf(metadata, size) {
  const { protocol, mode, scales, flip, base_size: base } = metadata;
  if (protocol === "mmseg") return mmsegViews(metadata, size);
  const factors = protocol === null ? [null] : scales;
  return factors.map((factor) => {
    const resized = factor === null ? size : scaledSize(size, base, factor);
    const crop = protocol === null || mode === "whole" ? resized : metadata.crop_size;
    const missing = resized.map((length, axis) => Math.max(0, crop[axis] - length));
    const padded = resized.map((length, axis) => length + missing[axis]);
    const origins = padded.map((length, axis) => cropOrigins(length, crop[axis], metadata.stride_rate ?? 1));
    const passes = places(origins).flatMap((place) =>
      (flip && protocol !== null ? [false, true] : [false]).map((mirrored) => ({ ...place, mirrored })));
    const padding = missing.map((length) => Math.floor(length / 2));
    return { size: resized, padding, padded, crop, passes, rounded: false, logarithms: false };
  });
}

function mmsegViews({ scale, scales, flip, crop_size: cropSize, stride, align_corners: aligned }, size) {
  return scales.flatMap((factor) => {
    const resized = fittedSize(size, scale.map((side) => Math.trunc(side * factor)));
    const crop = cropSize === null ? resized : resized.map((length, axis) => Math.min(length, cropSize[axis]));
    const origins = resized.map((length, axis) =>
      (cropSize === null ? [0] : strideOrigins(length, cropSize[axis], stride[axis])));
    return (flip ? [false, true] : [false]).map((mirrored) => {
      // A crop of the mirror image is the mirror image of a crop.
      const passes = places(origins).map(({ top, left }) =>
        ({ top, left: mirrored ? resized[1] - crop[1] - left : left, mirrored }));
      const same = { size: resized, padding: [0, 0], padded: resized };
      return { ...same, crop, passes, rounded: true, logarithms: true, aligned };
    });
  });
}

function places([rows, columns]) {
  return rows.flatMap((top) => columns.map((left) => ({ top, left })));
}

function scaledSize([height, width], base, scale) {
  const long = Math.max(1, roundHalfEven(scale * base));
  if (height > width) return [long, Math.max(1, roundHalfEven((long / height) * width))];
  return [Math.max(1, roundHalfEven((long / width) * height)), long];
}

function fittedSize(size, scale) {
  const factor = Math.min(Math.max(...scale) / Math.max(...size), Math.min(...scale) / Math.min(...size));
  return size.map((side) => Math.max(1, Math.trunc(side * factor + 0.5)));
}

function cropOrigins(length, crop, rate) {
  const stride = Math.ceil(crop * rate);
  const count = Math.ceil((length - crop) / stride) + 1;
  return Array.from({ length: count }, (_, index) => Math.min(index * stride, length - crop));
}

function strideOrigins(length, crop, stride) {
  const count = Math.floor(Math.max(length - crop + stride - 1, 0) / stride) + 1;
  return Array.from({ length: count }, (_, index) => Math.max(0, Math.min(index * stride, length - crop)));
}

// The padded picture of a view as the network takes it, uint8 [rows, columns, 3].
function storedPixels({ mean, std }, picture, size, view) {
  const { size: resized, padding: [top, left], padded: [height, width], rounded } = view;
  const values = resize(picture, size, CHANNELS, resized);
  const [means, deviations] = [Float32Array.from(mean), Float32Array.from(std)];
  const result = new Uint8Array(height * width * CHANNELS);
  // The mean colour is 0 once normalized.
  for (let at = 0; at < result.length; at++) result[at] = roundHalfEven(means[at % CHANNELS]);
  for (let row = 0; row < resized[0]; row++) {
    let from = row * resized[1] * CHANNELS;
    let to = ((top + row) * width + left) * CHANNELS;
    for (let column = 0; column < resized[1]; column++) {
      for (let channel = 0; channel < CHANNELS; channel++) {
        const value = rounded ? roundHalfEven(values[from]) : values[from];
        from++;
        // Normalized and back, as psanet_tf.Segmenter does: the last bit decides where a number lies half-way.
        const normalized = float(float(value - means[channel]) / deviations[channel]);
        const stored = roundHalfEven(float(float(normalized * deviations[channel]) + means[channel]));
        result[to++] = Math.min(Math.max(stored, 0), 255);
      }
    }
  }
  return result;
}

function cropped(values, { padded: [, width], crop: [rows, columns] }, { top, left, mirrored }) {
  const result = new Uint8Array(rows * columns * CHANNELS);
  let to = 0;
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      let from = ((top + row) * width + left + (mirrored ? columns - 1 - column : column)) * CHANNELS;
      for (let channel = 0; channel < CHANNELS; channel++) result[to++] = values[from++];
    }
  }
  return result;
}

function add(view, { top, left, mirrored }, probabilities, classes) {
  const { sums, counts, padded: [, width], crop: [rows, columns], logarithms } = view;
  let from = 0;
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      const pixel = (top + row) * width + left + (mirrored ? columns - 1 - column : column);
      counts[pixel]++;
      for (let to = pixel * classes, end = to + classes; to < end; to++, from++) {
        sums[to] += logarithms ? Math.log(Math.max(probabilities[from], LEAST)) : probabilities[from];
      }
    }
  }
}

function divide({ sums, counts }, classes) {
  for (let pixel = 0, at = 0; pixel < counts.length; pixel++) {
    for (const end = at + classes; at < end; at++) sums[at] /= counts[pixel];
  }
}

// The classes of the largest sums over the views, resized to the picture, row by row.
async function mostProbable(views, [height, width], classes, task) {
  const sampled = views.map(({ size: [h, w], logarithms, aligned }) => {
    const along = logarithms && aligned ? alignedSamples : samples;
    return { rows: along(h, height), columns: along(w, width) };
  });
  const labels = new Uint8Array(height * width);
  const sums = new Float32Array(width * classes);
  const pixel = new Float32Array(classes);
  let rested = performance.now();
  for (let row = 0; row < height; row++) {
    if (performance.now() - rested > REST) {
      await task.rest();
      rested = performance.now();
    }
    sums.fill(0);
    views.forEach((view, index) => addRow(sums, view, sampled[index], row, classes, pixel));
    for (let column = 0, at = 0; column < width; column++) {
      let best = 0;
      let most = -Infinity;
      for (let label = 0; label < classes; label++, at++) {
        if (sums[at] > most) [best, most] = [label, sums[at]];
      }
      labels[row * width + column] = best;
    }
  }
  return labels;
}

// Adds a row of a view's probabilities, resized, to `result`; `pixel` is room for one pixel's.
function addRow(result, view, { rows, columns }, row, classes, pixel) {
  const { sums, padding: [top, left], padded: [, stride], size: [, width], logarithms } = view;
  const above = ((top + rows.lower[row]) * stride + left) * classes;
  const below = ((top + rows.upper[row]) * stride + left) * classes;
  const down = rows.weight[row];
  const blended = new Float32Array(width * classes);
  for (let at = 0; at < blended.length; at++) {
    blended[at] = sums[above + at] + (sums[below + at] - sums[above + at]) * down;
  }
  for (let column = 0, to = 0; column < columns.lower.length; column++) {
    const first = columns.lower[column] * classes;
    const second = columns.upper[column] * classes;
    const across = columns.weight[column];
    for (let label = 0; label < classes; label++) {
      pixel[label] = blended[first + label] + (blended[second + label] - blended[first + label]) * across;
    }
    if (logarithms) softmax(pixel);
    for (let label = 0; label < classes; label++) result[to++] += pixel[label];
  }
}

function softmax(values) {
  let most = -Infinity;
  for (const value of values) most = Math.max(most, value);
  let sum = 0;
  for (let index = 0; index < values.length; index++) {
    values[index] = Math.exp(values[index] - most);
    sum += values[index];
  }
  for (let index = 0; index < values.length; index++) values[index] /= sum;
}
