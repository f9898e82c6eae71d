// The page as the server gives it.

import { start } from "./page.js";
import { ServedModel } from "./served.js";

start(new ServedModel(document.body.dataset.model));
