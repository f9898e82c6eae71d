// A picture file as it is shown.

import { Refusal } from "./refusal.js";

// {name, file, bitmap} of a file, turned as its orientation tag says.
export async function openPicture(file) {
  const bitmap = await createImageBitmap(file, { imageOrientation: "from-image" }).catch(() => {
    throw new Refusal(`${file.name} is not an image that this browser can read.`);
  });
  return { name: file.name.replace(/\.[^.]*$/, "") || "image", file, bitmap };
}

// Before minutes of work: what a model with these metadata does not take.
export function checkPicture({ max_pixels: most, channels, dtype, mean }, { width, height }) {
  if ((channels ?? mean.length) !== 3 || (dtype ?? "uint8") !== "uint8") {
    throw new Refusal(`This model is for images of ${channels} channels (${dtype}); this page shows photographs alone.`);
  }
  if (width * height > most) {
    const mega = (pixels) => Number((pixels / 1e6).toPrecision(2));
    throw new Refusal(`The picture has ${mega(width * height)} megapixels, the model takes at most ${mega(most)}: reduce it first.`);
  }
}
