// The stream of snapshots: read by fetch, so that the key travels in a header and never in the URL.
// The first event of a connection holds the whole history, each later one what came since.

const KEY = "headrace.key";
const LONGEST_WAIT_MS = 10_000;

export const key = {
  get: () => sessionStorage.getItem(KEY),
  set: (text) => sessionStorage.setItem(KEY, text),
  forget: () => sessionStorage.removeItem(KEY),
};

export function headers(more = {}) {
  const held = key.get();
  return held ? { ...more, authorization: `Bearer ${held}` } : more;
}

/** Calls `show(snapshot)` at each event and `tell(state, why)` at each change of the connection. */
export class Feed {
  constructor(show, tell) {
    this.show = show;
    this.tell = tell;
    this.abort = null;
    this.running = false;
  }

  start() {
    if (this.running) return;
    if (document.documentElement.dataset.needsKey === "yes" && !key.get()) {
      this.tell("needs-key", null);
      return;
    }
    this.running = true;
    this.abort = new AbortController();
    this.keepOn(this.abort.signal);
  }

  stop() {
    this.running = false;
    this.abort?.abort();
  }

  async keepOn(signal) {
    let wait = 500;
    while (!signal.aborted) {
      try {
        const reply = await fetch("/snapshot/stream", { headers: headers(), signal, cache: "no-store" });
        if (reply.status === 401) {
          this.stop();
          this.tell("needs-key", key.get() ? "The server does not know this key." : null);
          key.forget();
          return;
        }
        if (reply.ok) {
          wait = 500;
          this.tell("live");
          await this.read(reply.body, signal);
        } else {
          const why = reply.status === 429 ? "too many watch" : `answer ${reply.status}`;
          this.tell("waiting", why);
          await reply.text();
        }
      } catch (error) {
        if (signal.aborted) return;
        this.tell("lost", "not reached");
      }
      await new Promise((resolve) => setTimeout(resolve, wait));
      wait = Math.min(wait * 2, LONGEST_WAIT_MS);
    }
  }

  async read(body, signal) {
    const history = new Kept();
    for await (const { event, data } of events(body)) {
      if (signal.aborted) return;
      if (event === "end") {
        this.tell("draining");
        return;
      }
      const snapshot = JSON.parse(data);
      history.take(snapshot);
      if (snapshot.draining) this.tell("draining");
      this.show(snapshot);
    }
    this.tell("lost", "the connection ended");
  }
}

/** What came so far of one connection's history, no more of it than the server keeps. */
class Kept {
  constructor() {
    this.intervals = new Map();
    this.recent = [];
  }

  take(snapshot) {
    const { history, taken } = snapshot;
    for (const interval of history.intervals) this.intervals.set(interval.begin, interval);
    for (const begin of this.intervals.keys()) {
      if (begin < taken - history.kept_s) this.intervals.delete(begin);
    }
    this.recent = this.recent.concat(history.recent).slice(-50);
    history.isNew = history.recent.length > 0;
    history.intervals = [...this.intervals.values()].sort((a, b) => a.begin - b.begin);
    history.recent = this.recent;
  }
}

/** The server-sent events in a stream of bytes. */
export async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      held += value;
      let end;
      while ((end = held.indexOf("\n\n")) >= 0) {
        const found = { event: "message", data: "" };
        for (const line of held.slice(0, end).split("\n")) {
          if (line.startsWith("event: ")) found.event = line.slice(7);
          else if (line.startsWith("data: ")) found.data += line.slice(6);
        }
        held = held.slice(end + 2);
        if (found.data) yield found;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
