// Run a limited number of tasks at once; the others wait in their order. Pure.

export class Lanes {
  #free;
  #waiting = [];

  constructor(most) {
    this.#free = most;
  }

  /** Run `task` when a lane is free, and return its result; if `signal` is aborted, the task no longer waits. */
  async run(task, signal) {
    await this.#enter(signal);
    try {
      return await task();
    } finally {
      this.#leave();
    }
  }

  #enter(signal) {
    signal?.throwIfAborted();
    if (this.#free > 0) {
      this.#free -= 1;
      return Promise.resolve();
    }
    return new Promise((resolve, reject) => {
      const task = { enter: resolve };
      this.#waiting.push(task);
      signal?.addEventListener("abort", () => {
        const index = this.#waiting.indexOf(task);
        if (index === -1) return; // it has a lane already
        this.#waiting.splice(index, 1);
        reject(signal.reason);
      });
    });
  }

  #leave() {
    const next = this.#waiting.shift();
    if (next) next.enter();
    else this.#free += 1;
  }
}
