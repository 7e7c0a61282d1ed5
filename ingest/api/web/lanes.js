// So many tasks at once and no more; the others wait in the order in which they came. Pure.

export class Lanes {
  #free;
  #waiting = [];

  constructor(most) {
    this.#free = most;
  }

  /** Run `task` when a lane is free, and return what it returns; a task whose `signal` is aborted gives its place up. */
  async run(task, signal) {
    await this.#lane(signal);
    try {
      return await task();
    } finally {
      this.#leave();
    }
  }

  #lane(signal) {
    signal?.throwIfAborted();
    if (this.#free > 0) {
      this.#free -= 1;
      return Promise.resolve();
    }
    return new Promise((resolve, reject) => {
      const place = { enter: resolve };
      this.#waiting.push(place);
      signal?.addEventListener("abort", () => {
        const at = this.#waiting.indexOf(place);
        if (at === -1) return; // it has a lane already
        this.#waiting.splice(at, 1);
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
