// The single figures of the page: each element that names one in data-figure shows it.

import { count, dollars, duration, rate, seconds, share } from "./format.js";

const places = new Map();
for (const element of document.querySelectorAll("[data-figure]")) {
  places.set(element.dataset.figure, element);
}

/** Show `text`; `value` is the exact number behind it, for programs that read the page. */
export function show(name, text, value = null) {
  const element = places.get(name);
  if (element.textContent !== text) element.textContent = text;
  if (element instanceof HTMLDataElement && value !== null) element.value = value;
}

export function showFigures(s) {
  const n = (outcome) => s.requests[outcome] ?? 0;
  const all = n("ok") + n("error") + n("cancelled");
  const fullness = (lane) => (lane.places ? lane.running / lane.places : 0);
  const fullest = s.lanes.reduce((a, b) => (fullness(b) > fullness(a) ? b : a));
  show("uptime", duration(s.uptime_s), s.uptime_s);
  show("version", s.version ?? "");
  show("requests_per_s", rate(s.requests_per_s), s.requests_per_s);
  for (const outcome of ["ok", "error", "cancelled"]) {
    show(`requests.${outcome}`, count(n(outcome)), n(outcome));
  }
  show("running", count(s.running), s.running);
  show("queued", count(s.queued), s.queued);
  show("occupancy", share(fullness(fullest)), fullness(fullest));
  show("places.taken", count(fullest.running), fullest.running);
  show("places", count(fullest.places), fullest.places);
  show("batch", s.batch_occupancy === null ? "" : ` · batch ${share(s.batch_occupancy)}`);
  document.getElementById("occupancy-of").title =
    `Places taken at ${fullest.name}, the fullest backend; then how full the last 10 s' batches were`;
  for (const kind of ["prompt_tokens", "completion_tokens"]) {
    show(`${kind}_per_s`, rate(s[`${kind}_per_s`]), s[`${kind}_per_s`]);
    show(kind, count(s[kind]), s[kind]);
  }
  show("ttft.p50", seconds(s.ttft.p50_s), s.ttft.p50_s);
  show("ttft.count", count(s.ttft.count), s.ttft.count);
  const failed = all ? n("error") / all : null;
  show("error_share", share(failed), failed);
  show("requests.all", count(all), all);
  show("price_usd", dollars(s.price_usd), s.price_usd);
  show("priced", count(s.priced), s.priced);
}
