// A picture as it is sent to a server, with the pixels that are shown, and the labels that come back.

import { openPicture } from "./picture.js";
import { Refusal } from "./refusal.js";

const LARGEST_PNG = 4e6; // pixels; beyond, a PNG of a photograph gets too large to send

// {name, bitmap, data} of a file; `data` is the base64 of a JPEG or PNG whose pixels are the bitmap's, in this order: what
// an orientation tag turns is turned here, not left to whoever reads the file.
export async function readPicture(file) {
  const { name, bitmap } = await openPicture(file);
  const sendable = file.type === "image/jpeg" || file.type === "image/png";
  if (sendable && !mayBeTurned(new Uint8Array(await file.arrayBuffer()))) {
    return { name, bitmap, data: await toBase64(file) };
  }
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const context = canvas.getContext("2d");
  const lossless = bitmap.width * bitmap.height <= LARGEST_PNG;
  if (!lossless) {
    context.fillStyle = "#fff"; // JPEG has no transparency; the server lays images on white, too
    context.fillRect(0, 0, canvas.width, canvas.height);
  }
  context.drawImage(bitmap, 0, 0);
  const blob = await canvas.convertToBlob(lossless ? { type: "image/png" } : { type: "image/jpeg", quality: 0.95 });
  return { name, bitmap: await createImageBitmap(blob), data: await toBase64(blob) };
}

// {blob, labels}: a grey PNG, and its labels as a Uint8Array, one per pixel.
export async function decodeLabels(base64, { width, height }) {
  const blob = new Blob([Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0))], { type: "image/png" });
  const bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  if (bitmap.width !== width || bitmap.height !== height) {
    throw new Refusal(`The server labelled ${bitmap.width} × ${bitmap.height} pixels, the picture has ${width} × ${height}.`);
  }
  const context = new OffscreenCanvas(width, height).getContext("2d");
  context.drawImage(bitmap, 0, 0);
  const { data } = context.getImageData(0, 0, width, height);
  const labels = new Uint8Array(width * height);
  for (let index = 0; index < labels.length; index++) labels[index] = data[4 * index];
  return { blob, labels };
}

// Whether a JPEG or PNG has an orientation other than the first, or metadata that are not understood here.
function mayBeTurned(bytes) {
  const view = new DataView(bytes.buffer);
  const is = (at, text) => [...text].every((letter, index) => bytes[at + index] === letter.charCodeAt(0));
  if (is(1, "PNG")) {
    for (let at = 8; at + 8 <= bytes.length && !is(at + 4, "IDAT"); at += 12 + view.getUint32(at)) {
      if (is(at + 4, "eXIf")) return true;
    }
    return false;
  }
  for (let at = 2; at + 4 <= bytes.length && bytes[at] === 0xff && bytes[at + 1] !== 0xda; at += 2 + view.getUint16(at + 2)) {
    if (bytes[at + 1] !== 0xe1 || !is(at + 4, "Exif")) continue;
    const tiff = at + 10;
    try {
      const little = is(tiff, "II");
      const directory = tiff + view.getUint32(tiff + 4, little);
      const count = view.getUint16(directory, little);
      for (let entry = directory + 2; entry < directory + 2 + 12 * count; entry += 12) {
        if (view.getUint16(entry, little) === 0x0112) return view.getUint16(entry + 8, little) !== 1;
      }
    } catch (error) {
      if (error instanceof RangeError) return true;
      throw error;
    }
  }
  return false;
}

function toBase64(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });
}
