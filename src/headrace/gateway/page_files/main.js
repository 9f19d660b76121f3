// Puts the page together: tabs, theme, key, and what each snapshot is shown in.

import { lines, stacks } from "./charts.js";
import { Feed, key } from "./feed.js";
import { showFigures } from "./figures.js";
import { drawHeat } from "./heat.js";
import { loadModels, playground, showPrices } from "./playground.js";
import { showErrors, showLanes, showModels, showPercentiles, showRecent, showWorkers } from "./tables.js";
import { theme } from "./theme.js";

const at = (id) => document.getElementById(id);
const QUEUE_SPAN_S = 120;
const WORDS = { connecting: "connecting", live: "live", lost: "not connected", waiting: "waiting", draining: "being stopped", "needs-key": "needs a key" };
const gauges = [];
let latest = null;
let hasModels = false;
let drawnAt = 0;

function show(snapshot) {
  latest = snapshot;
  gauges.push([snapshot.taken, snapshot.running, snapshot.queued]);
  while (gauges[0][0] < snapshot.taken - QUEUE_SPAN_S) gauges.shift();
  showPrices(snapshot);
  showFigures(snapshot);
  if (at("dashboard").hidden) return;
  const calls = Object.values(snapshot.requests).reduce((a, b) => a + b, 0);
  at("no-requests").hidden = calls + snapshot.running + snapshot.queued > 0;
  showPercentiles(snapshot);
  showErrors(snapshot);
  showLanes(snapshot);
  showWorkers(snapshot);
  showModels(snapshot);
  if (snapshot.history.isNew || !drawnAt) showRecent(snapshot);
  if (snapshot.history.isNew || performance.now() - drawnAt > 1000) draw();
  drawQueue();
}

function draw() {
  if (!latest || at("dashboard").hidden) return;
  drawnAt = performance.now();
  const { taken, history } = latest;
  const { interval_s: step, intervals } = history;
  const span = spanOf(latest);
  const bars = [];
  const byBegin = new Map(intervals.map((i) => [i.begin, i]));
  const now = Math.floor(taken / step) * step;
  for (let begin = now - span + step; begin <= now; begin += step) {
    // The last interval is not over: its rate is over what has passed of it.
    const passed = Math.max(1, Math.min(step, taken - begin));
    bars.push({ begin, age: taken - begin, step: passed, found: byBegin.get(begin) });
  }
  const tokens = (name) => bars.map(({ age, step: s, found }) => [age, (found?.[name] ?? 0) / s]);
  lines(at("chart-tokens"), [
    { name: "in", points: tokens("prompt_tokens") },
    { name: "out", points: tokens("completion_tokens") },
  ], span);
  stacks(at("chart-requests"), bars.filter(({ found }) => found).map(({ age, step: s, found }) => ({
    age,
    step: s,
    parts: {
      ok: (found.requests.ok ?? 0) / s,
      left: (found.requests.cancelled ?? 0) / s,
      error: (found.requests.error ?? 0) / s,
    },
  })), span);
  drawHeat(latest, span);
}

/** How far back the charts go: as long as the server runs, in whole minutes, and as far as it keeps. */
function spanOf({ uptime_s: uptime, history: { kept_s: kept } }) {
  return Math.min(kept, Math.max(120, Math.ceil(uptime / 60) * 60));
}

function drawQueue() {
  const points = (place) => gauges.map((g) => [latest.taken - g[0], g[place]]);
  lines(at("chart-queue"), [{ name: "out", points: points(1) }, { name: "queued", points: points(2) }], QUEUE_SPAN_S);
}

function redraw() {
  if (!latest) return;
  draw();
  drawQueue();
}

function tell(state, why) {
  const element = at("state");
  element.dataset.state = state;
  const words = why && state !== "needs-key" ? `${WORDS[state]} (${why})` : WORDS[state];
  if (element.textContent !== words) element.textContent = words;
  at("ask-key").hidden = state !== "needs-key";
  if (state === "needs-key") {
    for (const panel of ["dashboard", "playground"]) at(panel).hidden = true;
    if (why) at("key-why").textContent = why;
    at("key").focus();
  }
  if (state === "live") {
    drawnAt = 0;
    if (!hasModels) loadModels().then(() => { hasModels = true; });
  }
}

function tabs() {
  const all = [...document.querySelectorAll('[role="tab"]')];
  const choose = (chosen) => {
    for (const tab of all) {
      const is = tab === chosen;
      tab.setAttribute("aria-selected", String(is));
      tab.tabIndex = is ? 0 : -1;
      at(tab.getAttribute("aria-controls")).hidden = !is || !at("ask-key").hidden;
    }
    history.replaceState(null, "", chosen.id === "tab-playground" ? "#playground" : "#");
    redraw();
    if (latest && !at("dashboard").hidden) showRecent(latest);
  };
  for (const tab of all) {
    tab.addEventListener("click", () => choose(tab));
    tab.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      const next = all[(all.indexOf(tab) + step + all.length) % all.length];
      choose(next);
      next.focus();
    });
  }
  const chosen = () => choose(all[location.hash === "#playground" ? 1 : 0]);
  chosen();
  return chosen;
}

const chosenTab = tabs();
const feed = new Feed(show, tell);
theme(at("theme"), redraw);
playground();

at("ask-key").addEventListener("submit", (event) => {
  event.preventDefault();
  key.set(at("key").value.trim());
  at("key").value = "";
  at("ask-key").hidden = true;
  chosenTab();
  feed.start();
});
for (const radio of document.querySelectorAll('input[name="heat"]')) radio.addEventListener("change", redraw);
new ResizeObserver(redraw).observe(at("dashboard"));

const curl = `curl ${location.origin}/v1/chat/completions -H 'content-type: application/json' -d '{"messages": [{"role": "user", "content": "What is the capital of France?"}]}'`;
at("try").textContent = curl;
at("copy-try").addEventListener("click", () => navigator.clipboard?.writeText(curl));

// Nobody looks at a hidden page: it is not fed.
document.addEventListener("visibilitychange", () => (document.hidden ? feed.stop() : feed.start()));
feed.start();
