// Asks a model server over TensorFlow Serving's REST API.

import { Refusal } from "./refusal.js";

const metadata = new Map(); // address of a version -> its metadata, which never change

// The version that takes requests at a model's address (which may name a version or a label), as
// {number, url, metadata}: what is asked of its url is answered by this version and no other, also while a newer one
// takes over.
export async function currentVersion(address, token, signal) {
  const model = address.replace(/\/+$/, "");
  const match = model.match(/^(.*\/v1\/models\/[^/:]+)(\/versions\/\d+|\/labels\/[^/:]+)?$/);
  if (!match) throw new Refusal("Enter the model's address first, such as http://127.0.0.1:8501/v1/models/psanet.");
  const { model_version_status: states } = await call(model, token, { signal });
  const available = states.filter((item) => item.state === "AVAILABLE").map((item) => BigInt(item.version));
  if (!available.length) {
    const reasons = states.map((item) => `version ${item.version}: ${item.state} ${item.status.error_message}`.trim());
    throw new Refusal(`The server has no version of this model that takes requests (${reasons.join("; ")}).`);
  }
  const number = available.reduce((a, b) => (a > b ? a : b)).toString();
  const url = `${match[1]}/versions/${number}`;
  if (!metadata.has(url)) {
    const answer = await predict(url, token, { signature_name: "metadata", instances: ["all"] }, signal);
    metadata.set(url, JSON.parse(answer.predictions[0]));
  }
  return { number, url, metadata: metadata.get(url) };
}

export function predict(url, token, request, signal) {
  return call(`${url}:predict`, token, { method: "POST", body: JSON.stringify(request), signal });
}

async function call(url, token, options = {}) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  let response;
  try {
    response = await fetch(url, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal(`No answer from ${new URL(url, location.href).origin}. Is the server running, and does it allow this page (CORS)?`);
  }
  const answer = await response.json().catch(() => ({ error: `status ${response.status}` }));
  if (!response.ok) throw new Refusal(inWords(response.status, answer.error), response.status);
  return answer;
}

function inWords(status, text) {
  if (status === 401) return "The server wants a token: enter it above.";
  if (status === 404) return `There is no such model on the server (${text}).`;
  if (status === 413) return `The picture's file is too large for the server (${text}).`;
  if (status === 429 || status === 503) return `The server has too much to do; try again in a moment (${text}).`;
  return text;
}
