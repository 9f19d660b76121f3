// A model's Markdown as elements. Its text only ever becomes text: no markup is parsed, links are
// shown and not followed unless they are plain http(s), pictures are never loaded.

import { node } from "./tables.js";

const FENCE = /^\s*(```+|~~~+)\s*([\w+#.-]*)/;
const HEADING = /^(#{1,6})\s+(.*)$/;
const BULLET = /^(\s*)[-*+]\s+(.*)$/;
const NUMBER = /^(\s*)(\d{1,9})[.)]\s+(.*)$/;
const QUOTE = /^>\s?(.*)$/;
const RULE = /^\s*([-*_])(\s*\1){2,}\s*$/;
const TABLE_RULE = /^\s*\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)+\|?\s*$/;
const DEEPEST = 6;

/** The elements that `text` says. */
export function render(text, depth = 0) {
  const lines = text.replaceAll("\r\n", "\n").split("\n");
  const made = [];
  let at = 0;
  while (at < lines.length) {
    const line = lines[at];
    const fence = FENCE.exec(line);
    if (fence) {
      let end = at + 1;
      while (end < lines.length && !lines[end].trimStart().startsWith(fence[1])) end += 1;
      const block = node("pre");
      block.append(node("code", "", lines.slice(at + 1, end).join("\n")));
      block.tabIndex = 0;
      made.push(block);
      at = end + 1;
    } else if (!line.trim()) {
      at += 1;
    } else if (RULE.test(line)) {
      made.push(node("hr"));
      at += 1;
    } else if (HEADING.test(line)) {
      const [, marks, words] = HEADING.exec(line);
      made.push(withWords(node(`h${Math.min(6, marks.length + 2)}`), words));
      at += 1;
    } else if (QUOTE.test(line) && depth < DEEPEST) {
      const end = after(lines, at, (l) => QUOTE.test(l));
      const inner = lines.slice(at, end).map((l) => QUOTE.exec(l)[1]);
      const quote = node("blockquote");
      quote.append(...render(inner.join("\n"), depth + 1));
      made.push(quote);
      at = end;
    } else if ((BULLET.test(line) || NUMBER.test(line)) && depth < DEEPEST) {
      const [list, end] = listAt(lines, at, depth);
      made.push(list);
      at = end;
    } else if (line.includes("|") && TABLE_RULE.test(lines[at + 1] ?? "")) {
      const end = after(lines, at + 2, (l) => l.includes("|"));
      made.push(table(line, lines.slice(at + 2, end)));
      at = end;
    } else {
      const end = after(lines, at + 1, (l) => l.trim() && ![FENCE, HEADING, BULLET, QUOTE, RULE].some((r) => r.test(l)));
      made.push(withWords(node("p"), lines.slice(at, end).join("\n")));
      at = end;
    }
  }
  return made;
}

function after(lines, at, belongs) {
  while (at < lines.length && belongs(lines[at])) at += 1;
  return at;
}

function listAt(lines, at, depth) {
  const numbered = NUMBER.test(lines[at]);
  const item = numbered ? NUMBER : BULLET;
  const list = node(numbered ? "ol" : "ul");
  if (numbered) list.start = Number(item.exec(lines[at])[2]);
  const indent = item.exec(lines[at])[1].length;
  while (at < lines.length) {
    const found = item.exec(lines[at]);
    if (!found || found[1].length !== indent) break;
    const deeper = (l) => l.trim() && l.length - l.trimStart().length > indent;
    const end = after(lines, at + 1, deeper);
    const inner = lines.slice(at + 1, end).map((l) => l.slice(indent + 2));
    const entry = withWords(node("li"), found.at(-1));
    if (inner.length) entry.append(...render(inner.join("\n"), depth + 1));
    list.append(entry);
    at = end;
    if (!lines[at]?.trim() && item.test(lines[at + 1] ?? "")) at += 1;
  }
  return [list, at];
}

function table(head, body) {
  const cells = (line) => line.trim().replace(/^\||\|$/g, "").split("|").map((c) => c.trim());
  const made = node("table");
  const row = (line, tag, into) => {
    const tr = into.appendChild(node("tr"));
    for (const cell of cells(line)) tr.append(withWords(node(tag), cell));
  };
  row(head, "th", made.createTHead());
  const rest = made.createTBody();
  for (const line of body) row(line, "td", rest);
  return made;
}

// Code first: what stands in it is not looked at further.
const INLINE = /(`+)(.+?)\1|\*\*(.+?)\*\*|__(.+?)__|\*([^\s*](?:.*?[^\s*])?)\*|~~(.+?)~~|!?\[([^\]]*)\]\(([^)\s]*)[^)]*\)/s;

function withWords(element, text, depth = 0) {
  let rest = text;
  while (rest) {
    const found = depth < DEEPEST ? INLINE.exec(rest) : null;
    if (!found) break;
    element.append(rest.slice(0, found.index));
    const [all, , code, bold, alsoBold, slanted, struck, label, address] = found;
    if (code !== undefined) element.append(node("code", "", code));
    else if (label !== undefined) element.append(link(label, address));
    else {
      const tag = slanted !== undefined ? "em" : struck !== undefined ? "s" : "strong";
      element.append(withWords(node(tag), bold ?? alsoBold ?? slanted ?? struck, depth + 1));
    }
    rest = rest.slice(found.index + all.length);
  }
  element.append(rest);
  return element;
}

function link(label, address) {
  if (!/^https?:\/\//i.test(address)) return document.createTextNode(label || address);
  const made = node("a", "", label || address);
  made.href = address;
  made.target = "_blank";
  made.rel = "noopener noreferrer nofollow";
  made.title = address;
  return made;
}
