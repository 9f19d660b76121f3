// Two kinds of chart over the last minutes, drawn on a canvas: lines, and bars on top of one another.

const PAD = { left: 40, right: 8, top: 8, bottom: 20 };
const FONT = '11px system-ui, "Liberation Sans", sans-serif';

export function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

/** A cleared canvas as large as it is shown, on a screen of any density. */
export function sheet(canvas) {
  const { width, height } = canvas.getBoundingClientRect();
  const density = window.devicePixelRatio || 1;
  const [w, h] = [Math.round(width * density), Math.round(height * density)];
  if (canvas.width !== w || canvas.height !== h) [canvas.width, canvas.height] = [w, h];
  const pen = canvas.getContext("2d");
  pen.setTransform(density, 0, 0, density, 0, 0);
  pen.clearRect(0, 0, width, height);
  pen.font = FONT;
  return { pen, width, height };
}

/** The least of 1, 2 and 5 times a power of ten that is not below `value`. */
function round(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((n) => n * power).find((n) => n >= value * 0.9999);
}

function short(n) {
  return n >= 1000 ? `${n / 1000}k` : String(Number(n.toPrecision(3)));
}

/** The frame of a chart whose values go up to `most` and whose time is the last `span` seconds. */
function frame(canvas, most, span) {
  const { pen, width, height } = sheet(canvas);
  const top = round(Math.max(most, 1));
  const inner = { w: width - PAD.left - PAD.right, h: height - PAD.top - PAD.bottom };
  const x = (age) => PAD.left + inner.w * (1 - age / span);
  const y = (value) => PAD.top + inner.h * (1 - value / top);
  pen.textBaseline = "middle";
  pen.lineWidth = 1;
  for (const part of [0, 0.5, 1]) {
    const at = Math.round(y(top * part)) + 0.5;
    pen.strokeStyle = colour(part ? "line-soft" : "line");
    pen.beginPath();
    pen.moveTo(PAD.left, at);
    pen.lineTo(width - PAD.right, at);
    pen.stroke();
    pen.fillStyle = colour("ink-quiet");
    pen.textAlign = "right";
    pen.fillText(short(top * part), PAD.left - 6, at);
  }
  ages(pen, x, span, height);
  return { pen, x, y };
}

/** The words under the axis of time. */
export function ages(pen, x, span, height) {
  pen.fillStyle = colour("ink-quiet");
  pen.textBaseline = "alphabetic";
  for (const [part, align] of [[1, "left"], [0.5, "center"], [0, "right"]]) {
    pen.textAlign = align;
    const age = span * part;
    const word = age === 0 ? "now" : age >= 60 ? `−${age / 60} min` : `−${age} s`;
    pen.fillText(word, x(age), height - 4);
  }
}

/** `series` are {name, points}, points [age in seconds, value], the oldest first. */
export function lines(canvas, series, span) {
  const most = Math.max(0, ...series.flatMap(({ points }) => points.map(([, value]) => value)));
  const { pen, x, y } = frame(canvas, most, span);
  for (const { name, points } of series) {
    if (!points.length) continue;
    pen.beginPath();
    points.forEach(([age, value], at) => {
      if (at) pen.lineTo(x(age), y(value));
      else pen.moveTo(x(age), y(value));
    });
    pen.strokeStyle = colour(name);
    pen.lineWidth = 1.75;
    pen.lineJoin = "round";
    pen.stroke();
    pen.lineTo(x(points.at(-1)[0]), y(0));
    pen.lineTo(x(points[0][0]), y(0));
    pen.globalAlpha = 0.1;
    pen.fillStyle = colour(name);
    pen.fill();
    pen.globalAlpha = 1;
  }
}

/** `bars` are {age, step, parts}; `parts` are values by the colours' names, the lowest first. */
export function stacks(canvas, bars, span) {
  const sum = ({ parts }) => Object.values(parts).reduce((all, value) => all + value, 0);
  const { pen, x, y } = frame(canvas, Math.max(0, ...bars.map(sum)), span);
  for (const { age, step, parts } of bars) {
    const [left, right] = [x(age), x(Math.max(0, age - step))];
    let height = 0;
    for (const [name, value] of Object.entries(parts)) {
      if (!value) continue;
      pen.fillStyle = colour(name);
      pen.fillRect(left, y(height + value), Math.max(1, right - left - 0.5), y(height) - y(height + value));
      height += value;
    }
  }
}
