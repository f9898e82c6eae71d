// The page without a server: the model is a file.

import { LocalModel } from "./local_model.js";
import { start } from "./page.js";

export const model = new LocalModel();
start(model);
