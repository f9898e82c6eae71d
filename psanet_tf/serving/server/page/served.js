// A model that a server answers for, through TensorFlow Serving's REST API: what the page asks.

import { checkPicture } from "./picture.js";
import { decodeLabels, readPicture } from "./sent_picture.js";
import { currentVersion, predict } from "./server.js";

const FIELDS = `
  <label class="address">Model <input id="server" type="url" spellcheck="false" autocomplete="off"
    placeholder="http://127.0.0.1:8501/v1/models/psanet"></label>
  <label id="token-field" class="address" hidden>Token <input id="token" type="password" autocomplete="off"></label>`;

export class ServedModel {
  readPicture = readPicture;

  // name: of the model that is served beside the page, also where a proxy has put both under a path; or empty.
  constructor(name) {
    this.name = name;
  }

  start(page) {
    page.fields.innerHTML = FIELDS;
    this.server = page.fields.querySelector("#server");
    this.token = page.fields.querySelector("#token");
    this.tokenField = page.fields.querySelector("#token-field");
    if (this.name) this.server.value = new URL(`v1/models/${this.name}`, location.href.replace(/[?#].*/, "")).href;
  }

  async label({ bitmap, data }, { signal }) {
    let version = await this.currentVersion(signal);
    checkPicture(version.metadata, bitmap);
    const request = { signature_name: "predict_bytes", instances: [{ b64: data }] };
    let answer;
    try {
      answer = await this.predict(version, request, signal);
    } catch (error) {
      if (error.status !== 404) throw error;
      // A newer version has taken its place since the server was asked which one there is.
      version = await this.currentVersion(signal);
      answer = await this.predict(version, request, signal);
    }
    const decoded = await decodeLabels(answer.predictions[0].b64, bitmap);
    return { ...decoded, metadata: version.metadata, by: `version ${version.number}`, version };
  }

  async attention({ picture, version }, x, y, { signal }) {
    const inputs = { image_bytes: [{ b64: picture.data }], points: [[[x, y]]] };
    let answer;
    try {
      answer = await this.predict(version, { signature_name: "attention", inputs }, signal);
    } catch (error) {
      if (error.status === 404) return null;
      throw error;
    }
    const { outputs } = answer;
    const maps = version.metadata.directions.map((direction) => [direction, outputs[direction][0][0]]);
    return { maps, box: outputs.image_box[0] };
  }

  currentVersion(signal) {
    return this.asked(currentVersion(this.server.value, this.token.value, signal));
  }

  predict(version, request, signal) {
    return this.asked(predict(version.url, this.token.value, request, signal));
  }

  asked(answer) {
    return answer.catch((error) => {
      if (error.status === 401) this.tokenField.hidden = false;
      throw error;
    });
  }
}
