// Tables and cards. Rows are kept and their cells rewritten only where a text has changed.

import { NOTHING, bytes, clock, count, dollars, duration, seconds, share } from "./format.js";

const QUANTILES = ["mean_s", "p50_s", "p90_s", "p95_s", "p99_s", "max_s"];
const CIRCUITS = { closed: ["ok", "closed"], open: ["error", "open"], half_open: ["warn", "half open"] };
const OUTCOMES = { ok: "ok", error: "error", cancelled: "" };

export function node(tag, className = "", text = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}

/** A cell is a text, or an object of text, className, title, and pill: the look of a small label. */
function fill(body, rows) {
  while (body.rows.length > rows.length) body.deleteRow(-1);
  rows.forEach((cells, at) => {
    const row = body.rows[at] ?? body.insertRow();
    cells.forEach((cell, place) => write(row.cells[place] ?? row.insertCell(), cell));
  });
}

function write(td, cell) {
  const { text, className = "", title = "", pill = null } = typeof cell === "string" ? { text: cell } : cell;
  if (td.className !== className) td.className = className;
  if (td.title !== title) td.title = title;
  if (pill === null) {
    if (td.textContent !== text || td.firstElementChild) td.textContent = text;
    return;
  }
  let label = td.firstElementChild;
  if (!label) {
    label = node("span");
    td.replaceChildren(label);
  }
  label.className = `pill ${pill}`;
  put(label, text);
}

/** The error class's name without what they all have in common. */
function kindOf(name) {
  return name.replace(/^LLM/, "").replace(/Error$/, "");
}

function ending({ outcome, finish_reason: reason, status, error }) {
  if (outcome === "ok") return reason ?? "ok";
  return outcome === "cancelled" ? "cancelled" : `${status ?? ""} ${kindOf(error ?? "error")}`;
}

function backendOf({ backend, provider }) {
  return [backend, provider].filter((n, i, all) => n && all.indexOf(n) === i).join(" · ") || NOTHING;
}

function empty(name, isEmpty) {
  document.querySelector(`[data-empty="${name}"]`).hidden = !isEmpty;
}

export function showPercentiles(s) {
  for (const row of document.querySelectorAll("#percentiles tbody tr")) {
    const name = row.dataset.row;
    QUANTILES.forEach((q, at) => {
      const cell = row.cells[at + 1] ?? row.insertCell();
      const data = cell.firstElementChild ?? cell.appendChild(node("data"));
      const value = s[name][q];
      data.dataset.figure = `${name}.${q}`;
      data.value = value ?? "";
      const text = seconds(value);
      if (data.textContent !== text) data.textContent = text;
      cell.title = value === null ? `${s[name].count} calls so far` : "";
    });
  }
}

export function showErrors(s) {
  const kinds = Object.entries(s.errors).sort((a, b) => b[1] - a[1]);
  const most = kinds.length ? kinds[0][1] : 1;
  const body = document.querySelector("#errors tbody");
  fill(body, kinds.map(([kind, n]) => [kindOf(kind), count(n), ""]));
  kinds.forEach(([kind, n], at) => {
    const cell = body.rows[at].cells[2];
    const track = cell.firstElementChild ?? cell.appendChild(node("div", "track"));
    const bar = track.firstElementChild ?? track.appendChild(node("i"));
    bar.className = kind === "LLMCancelledError" ? "left" : "error";
    bar.style.width = `${(100 * n) / most}%`;
    body.rows[at].cells[0].title = kind;
  });
  empty("errors", kinds.length === 0);
}

export function showModels(s) {
  fill(document.querySelector("#models tbody"), s.models.map((m) => [
    { text: m.name, className: "cut", title: m.name },
    count(m.requests.ok ?? 0),
    count(m.requests.error ?? 0),
    count(m.running),
    count(m.queued),
    count(m.prompt_tokens),
    count(m.completion_tokens),
    seconds(m.ttft.p50_s),
    seconds(m.e2e.p50_s),
    seconds(m.e2e.p95_s),
  ]));
}

export function showWorkers(s) {
  document.querySelector("#workers-card").hidden = s.workers.length === 0;
  fill(document.querySelector("#workers tbody"), s.workers.map((w) => [
    String(w.pid),
    count(w.requests),
    bytes(w.rss_bytes),
    count(w.restarts),
  ]));
}

export function showRecent(s) {
  const { recent } = s.history;
  fill(document.querySelector("#recent tbody"), recent.toReversed().map((r) => [
    clock(r.ended),
    {
      text: ending(r),
      className: "text", pill: OUTCOMES[r.outcome],
      title: [
        r.error,
        r.attempts > 1 ? `${r.attempts} attempts` : null,
        r.hedge ? `hedge ${r.hedge.replace("_", " ")}` : null,
      ].filter(Boolean).join(", "),
    },
    { text: r.model ?? NOTHING, className: "text cut", title: `${r.operation}: ${r.model ?? "no model"}` },
    { text: backendOf(r), className: "text cut wide", title: backendOf(r) },
    { text: r.reason ?? NOTHING, className: "text cut wide", title: r.policy ? `${r.policy}: ${r.reason}` : "one backend alone" },
    { text: count(r.prompt_tokens), className: "mid" },
    { text: count(r.completion_tokens), className: "mid" },
    { text: seconds(r.queue_s), className: "wide" },
    { text: seconds(r.ttft_s), className: "mid" },
    { text: seconds(r.tpot_s), className: "wide" },
    seconds(r.e2e_s),
    { text: dollars(r.price_usd), className: "wide" },
    { text: r.request_id ?? "", className: "cut wide id", title: r.request_id ?? "" },
  ]));
  empty("recent", recent.length === 0);
}

export function showLanes(s) {
  const box = document.querySelector("#lanes");
  const groups = new Map(s.backends.map((g) => [g.name, g]));
  while (box.children.length > s.lanes.length) box.lastElementChild.remove();
  s.lanes.forEach((lane, at) => {
    const card = box.children[at] ?? box.appendChild(laneCard());
    const group = groups.get(lane.name);
    const { parts } = card;
    put(parts.name, lane.name);
    put(parts.provider, lane.provider ?? "in the box");
    parts.circuit.hidden = lane.circuit === null;
    if (lane.circuit !== null) {
      const [look, word] = CIRCUITS[lane.circuit];
      parts.circuit.className = `pill ${look}`;
      put(parts.circuit, `circuit ${word}`);
    }
    meter(parts.places, lane.running, lane.places);
    meter(parts.waiting, lane.waiting, lane.max_waiting);
    parts.tokens.forEach((part) => { part.hidden = lane.max_tokens === null; });
    if (lane.max_tokens !== null) meter(parts.tokens, lane.tokens, lane.max_tokens);
    const n = group?.requests ?? {};
    put(parts.ended, `${count(n.ok ?? 0)} ok · ${count(n.error ?? 0)} failed`);
    const isOurs = lane.provider === null;
    parts.enginesName.hidden = parts.engines.hidden = !isOurs;
    if (isOurs) showEngines(parts.engines, lane.engines);
    parts.toldName.hidden = parts.told.hidden = lane.metrics.length === 0;
    showTold(parts.told, lane.metrics);
    parts.serverName.hidden = parts.server.hidden = !lane.server;
    if (lane.server) showServer(parts.server, lane.server);
  });
}

function showEngines(box, engines) {
  const asleep = { name: "not loaded yet", ready: false, restarts: 0 };
  const shown = engines.length ? engines : [asleep];
  while (box.children.length > shown.length) box.lastElementChild.remove();
  shown.forEach(({ name, ready, restarts }, place) => {
    const pill = box.children[place] ?? box.appendChild(node("span"));
    pill.className = ready ? "pill ok" : "pill";
    pill.title = ready ? "answers" : "does not answer now";
    put(pill, restarts ? `${name}, restarts: ${restarts}` : name);
  });
}

/** What engines say of themselves, those figures that they know. */
function showTold(box, metrics) {
  while (box.children.length > metrics.length) box.lastElementChild.remove();
  metrics.forEach((told, place) => {
    const line = box.children[place] ?? box.appendChild(node("p"));
    const figures = [
      [told.running, (n) => `${count(n)} running`],
      [told.queued, (n) => `${count(n)} waiting`],
      [told.batch_occupancy, (n) => `batch ${share(n)}`],
      [told.cache_usage, (n) => `cache ${share(n)}`],
      [told.prefix_hit_rate, (n) => `prefix hits ${share(n)}`],
      [told.loaded, (names) => `loaded: ${names.join(", ") || "nothing"}`],
    ];
    const known = figures.filter(([value]) => value !== null).map(([value, words]) => words(value));
    const words = [told.engine, ...known];
    while (line.children.length > words.length) line.lastElementChild.remove();
    words.forEach((word, at) => {
      put(line.children[at] ?? line.appendChild(node("span", at ? "pill" : "")), word);
    });
  });
}

const STATES = { ready: "ok", starting: "warn", stopping: "warn", failed: "error", stopped: "" };

function showServer(box, server) {
  const facts = [server.reused ? "somebody else's" : server.state];
  if (server.pid !== null) facts.push(`process ${server.pid}`);
  if (server.uptime_s !== null) facts.push(`up ${duration(server.uptime_s)}`);
  if (server.memory_bytes !== null) facts.push(bytes(server.memory_bytes));
  if (server.restarts) facts.push(`restarts: ${server.restarts}`);
  while (box.children.length > facts.length) box.lastElementChild.remove();
  facts.forEach((fact, place) => {
    const pill = box.children[place] ?? box.appendChild(node("span"));
    pill.className = place === 0 ? `pill ${STATES[server.state]}` : "pill";
    put(pill, fact);
  });
  box.title = server.error ?? server.url ?? "";
}

function put(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function meter([, track, figure], value, most) {
  put(figure, `${count(value)} / ${count(most)}`);
  track.firstElementChild.style.width = `${most ? Math.min(100, (100 * value) / most) : 0}%`;
}

function laneCard() {
  const card = node("article", "card lane");
  const head = card.appendChild(node("header"));
  const title = head.appendChild(node("div"));
  const name = title.appendChild(node("h3"));
  const provider = title.appendChild(node("span", "quiet"));
  const circuit = head.appendChild(node("span", "pill"));
  const list = card.appendChild(node("dl"));
  const row = (word) => {
    const term = list.appendChild(node("dt", "", word));
    const middle = list.appendChild(node("dd", "track"));
    middle.appendChild(node("i"));
    return [term, middle, list.appendChild(node("dd"))];
  };
  const places = row("places");
  const waiting = row("queue");
  const tokens = row("tokens held");
  list.appendChild(node("dt", "", "requests"));
  const ended = list.appendChild(node("dd", "pills"));
  const enginesName = list.appendChild(node("dt", "", "engines"));
  const engines = list.appendChild(node("dd", "pills"));
  const serverName = list.appendChild(node("dt", "", "server"));
  const server = list.appendChild(node("dd", "pills"));
  const toldName = list.appendChild(node("dt", "", "engine says"));
  const told = list.appendChild(node("dd", "pills"));
  card.parts = {
    name, provider, circuit, places, waiting, tokens, ended, enginesName, engines, serverName, server,
    toldName, told,
  };
  return card;
}
