// Numbers as people read them: three figures or more, never a unit too small or too large.

const GROUPED = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
export const NOTHING = "–";

export function count(n) {
  if (n === null || n === undefined) return NOTHING;
  if (n < 100_000) return GROUPED.format(n);
  const [scaled, suffix] = n < 1e6 ? [n / 1e3, "k"] : n < 1e9 ? [n / 1e6, "M"] : [n / 1e9, "G"];
  return scaled.toFixed(scaled < 10 ? 2 : scaled < 100 ? 1 : 0) + suffix;
}

export function bytes(n) {
  if (n === null || n === undefined) return NOTHING;
  const mib = n / 2 ** 20;
  return mib < 1024 ? `${mib.toFixed(mib < 100 ? 1 : 0)} MiB` : `${(mib / 1024).toFixed(2)} GiB`;
}

export function rate(n) {
  if (n === null || n === undefined) return NOTHING;
  if (n === 0) return "0";
  return n < 100 ? n.toFixed(n < 1 ? 3 : n < 10 ? 2 : 1) : count(Math.round(n));
}

export function seconds(s) {
  if (s === null || s === undefined) return NOTHING;
  if (s === 0) return "0 ms";
  if (s < 0.9995) {
    const ms = s * 1000;
    return ms.toFixed(ms < 0.1 ? 3 : ms < 10 ? 2 : ms < 100 ? 1 : 0) + " ms";
  }
  if (s < 600) return s.toFixed(s < 10 ? 2 : s < 100 ? 1 : 0) + " s";
  return duration(s);
}

export function duration(s) {
  if (s < 60) return `${Math.floor(s)} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${Math.floor(s % 60)} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

export function dollars(text) {
  if (text === null || text === undefined) return NOTHING;
  const n = Number(text);
  if (n === 0) return "$0";
  if (n < 0.01) return "$" + n.toFixed(2 - Math.floor(Math.log10(n))).replace(/0+$/, "");
  return "$" + (n < 10_000 ? n.toFixed(n < 1 ? 4 : 2) : count(n));
}

export function share(n) {
  if (n === null || n === undefined) return NOTHING;
  return (n * 100).toFixed(n === 0 || n === 1 ? 0 : n < 0.1 ? 2 : 1) + "%";
}

export function clock(unix) {
  return new Date(unix * 1000).toLocaleTimeString("en-GB");
}
