// What an ONNX file says of itself.

import Pbf from "./pbf.js";
import { Refusal } from "./refusal.js";

// Numbers of fields in onnx.proto.
const OF_MODEL = { metadata_props: 14 };
const OF_ENTRY = { key: 1, value: 2 };
const KEY = "psanet_tf";

// The metadata that psanet export wrote into a file of these bytes; the weights before them are skipped.
export function readMetadata(bytes, name) {
  const entries = new Map();
  try {
    new Pbf(bytes).readFields((field, _, file) => {
      if (field !== OF_MODEL.metadata_props) return;
      const { key, value } = file.readMessage((part, entry) => {
        if (part === OF_ENTRY.key) entry.key = file.readString();
        if (part === OF_ENTRY.value) entry.value = file.readString();
      }, {});
      entries.set(key, value);
    });
  } catch {
    throw new Refusal(`${name} is no ONNX file, or is damaged.`);
  }
  if (!entries.has(KEY)) {
    throw new Refusal(
      `${name} says nothing of its classes: psanet export did not write it, or a part of it is missing.`);
  }
  return JSON.parse(entries.get(KEY));
}
