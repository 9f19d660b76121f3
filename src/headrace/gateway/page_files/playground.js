// Chat with any model of this server. The conversation is held here and nowhere else.

import { events, headers } from "./feed.js";
import { count, dollars, rate, seconds } from "./format.js";
import { render } from "./markdown.js";
import { node } from "./tables.js";

const at = (id) => document.getElementById(id);
const said = at("said");
const history = [];
const unpriced = new Map();
let running = null;

export async function loadModels() {
  const reply = await fetch("/v1/models", { headers: headers() });
  if (!reply.ok) return;
  const { data } = await reply.json();
  const select = at("model");
  const held = select.value;
  select.replaceChildren(...data.map(({ id }) => new Option(id, id, false, id === held)));
}

/** The prices of answers come with the snapshot's recent calls, by the request's id. */
export function showPrices({ history: { recent } }) {
  for (const call of unpriced.size ? recent : []) {
    const answer = unpriced.get(call.request_id);
    if (!answer) continue;
    answer.price = call.price_usd;
    say(answer);
    unpriced.delete(call.request_id);
  }
}

function body(text) {
  const system = at("system").value.trim();
  const messages = [...history, { role: "user", content: text }];
  if (system) messages.unshift({ role: "system", content: system });
  const asked = { model: at("model").value, messages, stream: true, stream_options: { include_usage: true } };
  for (const name of ["temperature", "max_tokens"]) {
    if (at(name).value !== "") asked[name] = Number(at(name).value);
  }
  return asked;
}

function turn(who, text = "") {
  document.querySelector('[data-empty="said"]')?.remove();
  const made = said.appendChild(node("div", `turn ${who}`));
  made.append(node("span", "hidden", who === "user" ? "You:" : "Model:"));
  const words = made.appendChild(node("div", "words", text));
  said.scrollTop = said.scrollHeight;
  return { made, words };
}

async function ask(text) {
  const asked = body(text);
  turn("user", text);
  const { made, words } = turn("model", "…");
  const answer = {
    facts: made.appendChild(node("p", "facts")),
    text: "", thought: "", begin: performance.now(), first: null, end: null, usage: null, reason: null, price: null,
  };
  running = new AbortController();
  busy(true);
  try {
    const reply = await fetch("/v1/chat/completions", {
      method: "POST",
      headers: headers({ "content-type": "application/json" }),
      body: JSON.stringify(asked),
      signal: running.signal,
    });
    if (!reply.ok) throw new Error((await reply.json()).error?.message ?? `answer ${reply.status}`);
    unpriced.set(reply.headers.get("x-request-id"), answer);
    for await (const { data } of events(reply.body)) {
      if (data === "[DONE]") break;
      take(answer, JSON.parse(data));
      draw(words, answer);
      say(answer);
    }
  } catch (error) {
    if (error.name === "AbortError") answer.reason = "stopped";
    else fail(made, answer, error.message);
  } finally {
    busy(false);
    answer.end = performance.now();
    draw(words, answer);
    say(answer);
  }
  if (answer.text) history.push({ role: "user", content: text }, { role: "assistant", content: answer.text });
}

function take(answer, chunk) {
  if (chunk.error) throw new Error(chunk.error.message);
  if (chunk.usage) answer.usage = chunk.usage;
  const choice = chunk.choices?.[0];
  if (!choice) return;
  const thought = choice.delta?.reasoning_content ?? choice.delta?.reasoning ?? "";
  const text = choice.delta?.content ?? choice.delta?.refusal ?? "";
  if ((text || thought) && answer.first === null) answer.first = performance.now();
  answer.text += text;
  answer.thought += thought;
  answer.reason = choice.finish_reason ?? answer.reason;
}

// A long answer is not rendered anew for each of its pieces.
let drawing = 0;
function draw(words, answer) {
  if (drawing) return;
  drawing = requestAnimationFrame(() => {
    drawing = 0;
    const isAtEnd = said.scrollHeight - said.scrollTop - said.clientHeight < 60;
    const thought = answer.thought ? [node("div", "thought", answer.thought)] : [];
    words.replaceChildren(...thought, ...render(answer.text));
    if (isAtEnd) said.scrollTop = said.scrollHeight;
  });
}

function say({ facts, begin, first, end: ended, usage, reason, price }) {
  const end = ended ?? performance.now();
  const told = [];
  if (first !== null) told.push(`first token ${seconds((first - begin) / 1000)}`);
  const n = usage?.completion_tokens;
  if (n > 1 && first !== null && end > first) told.push(`${rate((1000 * (n - 1)) / (end - first))} tokens/s`);
  if (usage) told.push(`${count(usage.prompt_tokens)} in, ${count(n)} out`);
  told.push(seconds((end - begin) / 1000));
  if (reason) told.push(reason);
  if (price !== null) told.push(dollars(price));
  facts.replaceChildren(...told.map((text) => node("span", "", text)));
}

function fail(made, answer, message) {
  made.classList.add("failed");
  answer.reason = "failed";
  made.insertBefore(node("p", "words", message), made.querySelector(".facts"));
}

function busy(is) {
  at("send").disabled = is;
  at("stop").hidden = !is;
  if (!is) running = null;
}

export function playground() {
  const prompt = at("prompt");
  at("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    const text = prompt.value.trim();
    if (!text || running) return;
    prompt.value = "";
    ask(text);
  });
  prompt.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    at("ask").requestSubmit();
  });
  at("settings").addEventListener("submit", (event) => event.preventDefault());
  at("stop").addEventListener("click", () => running?.abort());
  at("clear").addEventListener("click", () => {
    running?.abort();
    history.length = 0;
    unpriced.clear();
    said.replaceChildren();
  });
}
