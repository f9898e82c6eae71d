// Asks a worker; every question has a number, by which answers, progress and stops are told apart.

import { Refusal } from "./refusal.js";

export class WorkerClient {
  questions = new Map();
  last = 0;

  // url: of the worker's module. It starts with the first question, and anew after one that broke it.
  constructor(url) {
    this.url = url;
  }

  // The answer to a question of some kind; `signal` stops it, `progress` is told how far it is.
  ask(kind, content, { signal, progress }) {
    const id = ++this.last;
    return new Promise((resolve, reject) => {
      const done = (settle, value) => {
        this.questions.delete(id);
        settle(value);
      };
      const answer = {
        progress,
        resolve: (value) => done(resolve, value),
        reject: (error) => done(reject, error),
      };
      if (signal.aborted) return answer.reject(signal.reason);
      this.questions.set(id, answer);
      signal.addEventListener("abort", () => {
        if (!this.questions.has(id)) return;
        this.worker?.postMessage({ id, kind: "stop" });
        answer.reject(signal.reason);
      });
      const moved = content.pixels ? [content.pixels.buffer] : [];
      this.started().postMessage({ ...content, id, kind }, moved);
    });
  }

  started() {
    if (this.worker) return this.worker;
    this.worker = new Worker(this.url, { type: "module" });
    this.worker.addEventListener("message", ({ data: { id, progress, answer, refusal, broken } }) => {
      const question = this.questions.get(id);
      if (broken) this.end(refusal);
      if (!question) return;
      if (progress) question.progress?.(progress);
      else if (refusal) question.reject(new Refusal(refusal));
      else question.resolve(answer);
    });
    this.worker.addEventListener("error", (event) => {
      event.preventDefault();
      const said = event.message ? ` (${event.message})` : "";
      this.end(`What labels pictures does not start, or has stopped${said}: reload the page.`);
    });
    return this.worker;
  }

  end(reason) {
    this.worker.terminate();
    this.worker = null;
    for (const question of [...this.questions.values()]) question.reject(new Refusal(reason));
  }
}
