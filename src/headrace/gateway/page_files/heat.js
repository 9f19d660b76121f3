// Latency over time: a column an interval, a row a step of the scale, the colour how many calls.

import { ages, colour, sheet } from "./charts.js";
import { seconds } from "./format.js";

const PAD = { left: 58, right: 8, top: 6, bottom: 20 };
const SHADES = 5;
const FEWEST_ROWS = 10;

const canvas = document.querySelector("#heat");
const tip = document.querySelector("#heat-tip");
let drawn = null;

export function chosen() {
  return document.querySelector('input[name="heat"]:checked').value;
}

/** The last `span` seconds of the snapshot's history. */
export function drawHeat(s, span) {
  const { bounds, interval_s: step, intervals } = s.history;
  const which = chosen();
  const cells = intervals
    .map((i) => ({ age: s.taken - i.begin, counts: i[which] }))
    .filter(({ age }) => age - step < span);
  const [low, high] = rows(cells, bounds.length);
  const { pen, width, height } = sheet(canvas);
  const box = { w: width - PAD.left - PAD.right, h: height - PAD.top - PAD.bottom };
  const x = (age) => PAD.left + box.w * (1 - Math.min(age, span) / span);
  const tall = box.h / (high - low + 1);
  const y = (row) => PAD.top + tall * (high - row);
  pen.fillStyle = colour("heat-0");
  pen.fillRect(PAD.left, PAD.top, box.w, box.h);
  const most = Math.max(1, ...cells.flatMap((cell) => cell.counts));
  const shades = Array.from({ length: SHADES }, (_, n) => channels(colour(`heat-${n}`)));
  for (const { age, counts } of cells) {
    const left = x(age);
    const wide = Math.max(1, x(Math.max(0, age - step)) - left);
    for (let row = low; row <= high; row += 1) {
      if (!counts[row]) continue;
      pen.fillStyle = mixed(shades, Math.log1p(counts[row]) / Math.log1p(most));
      pen.fillRect(left, y(row) + 0.5, wide - 0.5, tall - 1);
    }
  }
  pen.fillStyle = colour("ink-quiet");
  pen.textAlign = "right";
  pen.textBaseline = "middle";
  const every = Math.ceil(20 / tall);
  for (let row = low; row < high; row += every) pen.fillText(seconds(bounds[row]), PAD.left - 6, y(row));
  ages(pen, x, span, height);
  const calls = cells.reduce((n, { counts }) => n + counts.reduce((a, b) => a + b, 0), 0);
  if (!calls) {
    pen.textAlign = "center";
    pen.fillText("nothing measured yet", PAD.left + box.w / 2, PAD.top + box.h / 2);
  }
  const between = calls ? `, between ${edge(bounds, low)} and ${edge(bounds, high + 1)}` : "";
  canvas.setAttribute("aria-label", `Latency over the last ${span / 60} minutes: ${calls} calls${between}`);
  drawn = { cells, x, low, high, tall, box, bounds, step };
}

/** The rows that hold something, with some room around them. */
function rows(cells, last) {
  let [low, high] = [last, 0];
  for (const { counts } of cells) {
    counts.forEach((n, row) => {
      if (n) [low, high] = [Math.min(low, row), Math.max(high, row)];
    });
  }
  if (low > high) [low, high] = [8, 18];
  while (high - low + 1 < FEWEST_ROWS) {
    if (low > 0) low -= 1;
    if (high < last) high += 1;
  }
  return [low, high];
}

function edge(bounds, row) {
  return row <= 0 ? "0" : row > bounds.length ? "more" : seconds(bounds[row - 1]);
}

function channels(hex) {
  return [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
}

/** The colour at the share `part` of the way from the second shade to the last; one call is seen. */
function mixed(shades, part) {
  const place = 1 + part * (shades.length - 2);
  const below = Math.min(Math.floor(place), shades.length - 2);
  const [a, b] = [shades[below], shades[below + 1]];
  const rgb = a.map((value, n) => Math.round(value + (b[n] - value) * (place - below)));
  return `rgb(${rgb.join(",")})`;
}

canvas.addEventListener("pointermove", (event) => {
  if (!drawn) return;
  const { cells, x, low, high, tall, box, bounds, step } = drawn;
  const row = high - Math.floor((event.offsetY - PAD.top) / tall);
  const found = cells.find(({ age }) => event.offsetX >= x(age) && event.offsetX < x(Math.max(0, age - step)));
  const n = found && row >= low && row <= high ? found.counts[row] : 0;
  tip.hidden = !n;
  if (!n) return;
  const at = new Date(Date.now() - found.age * 1000).toLocaleTimeString("en-GB");
  const range = row >= bounds.length ? `above ${edge(bounds, row)}` : `${edge(bounds, row)} to ${edge(bounds, row + 1)}`;
  tip.textContent = `${n} ${n === 1 ? "call" : "calls"}, ${range}, ${at}`;
  const half = tip.offsetWidth / 2;
  tip.style.left = `${Math.max(half, Math.min(event.offsetX, PAD.left + box.w - half))}px`;
  tip.style.top = `${event.offsetY}px`;
});
canvas.addEventListener("pointerleave", () => {
  tip.hidden = true;
});
