// Bilinear resizing as psanet_tf does it. Numbers are rounded to 32 bits where TensorFlow rounds them: the network takes
// whole numbers, and one that lies half-way between two must fall to the same side.

const float = Math.fround;

// As Python's and NumPy's round.
export function roundHalfEven(value) {
  const floor = Math.floor(value);
  const rest = value - floor;
  if (rest !== 0.5) return rest < 0.5 ? floor : floor + 1;
  return floor % 2 === 0 ? floor : floor + 1;
}

// Where each of `target` samples lies among `source` ones, with half-pixel centres: {lower, upper, weight}, arrays, the
// weight that of `upper`. That is tf.image.resize, in 32 bits.
export function samples(source, target) {
  const scale = float(source / target);
  return sampled(target, source, (index) => float(float(float(index + 0.5) * scale) - 0.5));
}

// The same with aligned corners; a single sample is the first.
export function alignedSamples(source, target) {
  const scale = target > 1 ? (source - 1) / (target - 1) : 0;
  return sampled(target, source, (index) => Math.min(index * scale, source - 1));
}

function sampled(target, source, position) {
  const lower = new Int32Array(target);
  const upper = new Int32Array(target);
  const weight = new Float32Array(target);
  for (let index = 0; index < target; index++) {
    const at = position(index);
    const floor = Math.floor(at);
    lower[index] = Math.max(floor, 0);
    upper[index] = Math.min(Math.ceil(at), source - 1);
    weight[index] = at - floor;
  }
  return { lower, upper, weight };
}

// float32 [height, width, channels] of values [h, w, channels].
export function resize(values, [h, w], channels, [height, width]) {
  if (h === height && w === width) return Float32Array.from(values);
  const rows = samples(h, height);
  const columns = samples(w, width);
  const result = new Float32Array(height * width * channels);
  let at = 0;
  for (let y = 0; y < height; y++) {
    const [above, below, down] = [rows.lower[y] * w, rows.upper[y] * w, rows.weight[y]];
    for (let x = 0; x < width; x++) {
      const [left, right, across] = [columns.lower[x], columns.upper[x], columns.weight[x]];
      const corners = [above + left, above + right, below + left, below + right].map((pixel) => pixel * channels);
      for (let channel = 0; channel < channels; channel++) {
        const [a, b, c, d] = [values[corners[0] + channel], values[corners[1] + channel], values[corners[2] + channel],
          values[corners[3] + channel]];
        const top = float(a + float(float(b - a) * across));
        const bottom = float(c + float(float(d - c) * across));
        result[at++] = float(top + float(float(bottom - top) * down));
      }
    }
  }
  return result;
}
