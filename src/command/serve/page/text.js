// Samples and scores: texts whose tokens are coloured by their surprisal.

import {
  alertUser, bar, byId, colorAt, css, describe, element, inkOn, model, onColorScheme, orange, send, table, visible,
} from "./dom.js";

/** Bits of the strongest colour, unless somebody sets them. */
const BITS = 8;
/** Likeliest tokens that are asked for beside each. */
const BESIDE = 3;

const bitsOf = (logprob) => (logprob === null ? null : -logprob / Math.LN2);
const shown = (bits) => (bits === null ? "no surprisal: nothing comes before it" : `${bits.toFixed(2)} bits`);

function percent(bits) {
  const part = 100 * 2 ** -bits;
  return part >= 0.1 ? `${part.toPrecision(3)} %` : `${part.toExponential(1)} %`;
}

/** Tokens on the page: coloured, with the number of the one that is pointed at, a legend, and a table. */
class Tokens {
  #place;
  #readout;
  #full;
  #details;
  #items = [];
  #marks = [];

  constructor(parent, name) {
    const id = `${parent.id}-full`;
    this.#full = element("input", { type: "number", id, min: 1, max: 40, step: 1, value: BITS });
    this.#full.addEventListener("input", () => this.#recolor());
    this.bar = element("span");
    const legend = element(
      "div", { className: "legend" }, "0 bits", this.bar,
      element("label", { htmlFor: id }, "full colour from"), this.#full, "bits",
    );
    this.#readout = element("p", { className: "readout", "aria-live": "polite" });
    this.#place = element("div", { className: "tokens", role: "group", "aria-label": `${name}; arrow keys go from token to token` });
    this.#details = element("details", {}, element("summary", {}, "The numbers as a table"));
    this.#details.addEventListener("toggle", () => this.#showTable());
    parent.replaceChildren(legend, this.#place, this.#readout, this.#details);
    this.#place.addEventListener("pointerover", (event) => this.#show(event.target));
    this.#place.addEventListener("focusin", (event) => this.#show(event.target));
    this.#place.addEventListener("keydown", (event) => this.#move(event));
    onColorScheme(() => this.#recolor());
    this.#recolor();
  }

  /** A text that has no surprisal of its own. */
  plain(text, className = "") {
    this.#place.append(element("span", { className }, text));
  }

  /** `text` as the page shows it, its bits, and what else there is to say. */
  add(text, bits, note = "") {
    const mark = element("span", {}, text.replaceAll("\n", "↵\n") || "↵");
    mark.tabIndex = this.#marks.length === 0 ? 0 : -1;
    mark.dataset.index = this.#marks.length;
    if (bits === null) mark.className = "none";
    this.#items.push({ text, bits, note });
    this.#marks.push(mark);
    this.#color(mark, bits);
    this.#place.append(mark);
  }

  set busy(is) {
    this.#place.setAttribute("aria-busy", is);
    if (!is) this.#showTable();
  }

  /** Tokens with a surprisal, and their mean. */
  get summary() {
    const known = this.#items.filter(({ bits }) => bits !== null);
    const sum = known.reduce((sum, { bits }) => sum + bits, 0);
    return { count: known.length, sum, mean: sum / known.length };
  }

  #color(mark, bits) {
    if (bits === null) return;
    const color = colorAt(orange(), bits / Math.max(1, Number(this.#full.value) || BITS));
    mark.style.backgroundColor = css(color);
    mark.style.color = inkOn(color);
  }

  #recolor() {
    const next = bar(orange());
    this.bar.replaceWith(next);
    this.bar = next;
    this.#marks.forEach((mark, index) => this.#color(mark, this.#items[index].bits));
  }

  #show(mark) {
    const item = this.#items[mark.dataset?.index];
    if (!item) return;
    const probability = item.bits === null ? "" : `, probability ${percent(item.bits)}`;
    this.#readout.textContent = `${visible(item.text)}   ${shown(item.bits)}${probability}${item.note ? `. ${item.note}` : ""}`;
  }

  #move(event) {
    const index = Number(event.target.dataset?.index);
    const last = this.#marks.length - 1;
    const to = { ArrowRight: index + 1, ArrowDown: index + 1, ArrowLeft: index - 1, ArrowUp: index - 1, Home: 0, End: last }[event.key];
    if (Number.isNaN(index) || to === undefined) return;
    event.preventDefault();
    const next = this.#marks[Math.min(last, Math.max(0, to))];
    this.#marks[index].tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  }

  #showTable() {
    [...this.#details.children].slice(1).forEach((old) => old.remove());
    if (!this.#details.open) return;
    const rows = this.#items.map(({ text, bits, note }, index) =>
      [`${index + 1}`, visible(text), bits === null ? "–" : bits.toFixed(4), note]);
    this.#details.append(table("Surprisal in bits", ["Number", "Text", "Bits", "Beside it"], rows));
  }
}

/** The data of the events of a stream. */
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) yield part.replace(/^data: /, "");
  }
}

/** Puts parts of characters together, which the server spells `bytes:\xc3`: such tokens are shown as one. */
class Joined {
  #decoder = new TextDecoder();
  #bits = 0;
  #isOpen = false;

  /** The text and bits that can be shown now, if any. */
  push(token, bits) {
    if (!token.startsWith("bytes:\\x")) {
      const before = this.finish();
      return before ? { text: before.text + token, bits: before.bits + bits } : { text: token, bits };
    }
    const bytes = Uint8Array.from(token.slice(6).split("\\x").slice(1), (digits) => parseInt(digits, 16));
    const text = this.#decoder.decode(bytes, { stream: true });
    this.#bits += bits;
    this.#isOpen = text === "";
    if (this.#isOpen) return null;
    const sum = this.#bits;
    this.#bits = 0;
    return { text, bits: sum };
  }

  /** What is left of a character that has no end. */
  finish() {
    const text = this.#decoder.decode();
    if (!this.#isOpen) return null;
    const bits = this.#bits;
    this.#bits = 0;
    this.#isOpen = false;
    return { text, bits };
  }
}

function beside(top) {
  const names = Object.entries(top ?? {}).sort((a, b) => b[1] - a[1]).slice(0, BESIDE);
  return names.map(([token, logprob]) => `${visible(token)} ${percent(bitsOf(logprob))}`).join(", ");
}

function take(tokens, joined, { tokens: texts, token_logprobs: logprobs, top_logprobs: tops }) {
  texts.forEach((text, index) => {
    const bits = bitsOf(logprobs[index]);
    const likeliest = beside(tops?.[index]);
    const note = likeliest && `Likeliest: ${likeliest}`;
    if (bits === null) {
      tokens.add(text, bits);
      return;
    }
    const whole = joined.push(text, bits);
    if (whole) tokens.add(whole.text, whole.bits, note);
  });
}

const ENDS = { length: "all tokens are drawn", stop: "the text has ended" };

async function sample(signal) {
  const prompt = byId("prompt").value;
  const tokens = new Tokens(byId("sample-result"), "Sample");
  tokens.plain(prompt, "prompt");
  tokens.busy = true;
  const seed = byId("seed").value;
  const body = {
    model: model(), prompt, stream: true, logprobs: BESIDE, max_tokens: byId("length").valueAsNumber,
    temperature: byId("temperature").valueAsNumber, top_p: byId("top-p").valueAsNumber,
    ...(seed === "" ? {} : { seed: Number(seed) }),
  };
  const joined = new Joined();
  let end = "the stream broke off";
  try {
    const response = await send("/v1/completions", { body, signal });
    for await (const data of events(response)) {
      if (data === "[DONE]") break;
      const event = JSON.parse(data);
      if (event.error) throw new Error(event.error.message);
      const choice = event.choices[0];
      if (choice?.logprobs) take(tokens, joined, choice.logprobs);
      if (choice?.finish_reason) end = ENDS[choice.finish_reason] ?? choice.finish_reason;
    }
  } catch (error) {
    if (error.name !== "AbortError") throw error;
    end = "stopped";
  } finally {
    const rest = joined.finish();
    if (rest) tokens.add(rest.text, rest.bits);
    tokens.busy = false;
  }
  const { count, mean } = tokens.summary;
  return count === 0 ? `No token: ${end}.` : `${count} tokens, ${mean.toFixed(3)} bits each on average; ${end}.`;
}

async function score() {
  const text = byId("score-input").value;
  const per = byId("per").value;
  const answer = await (await send("/v1/score", { body: { model: model(), text, per } })).json();
  const tokens = new Tokens(byId("score-result"), "Scored text");
  const characters = Array.from(text); // offsets count characters, not the halves of them
  let at = 0;
  for (const row of answer.rows) {
    if (row.start > at) tokens.plain(characters.slice(at, row.start).join(""));
    const unknown = typeof row.unknown === "number" ? row.unknown > 0 : row.unknown;
    const note = unknown ? "Not in the vocabulary" : "";
    tokens.add(characters.slice(Math.max(at, row.start), row.end).join(""), row.surprisal, note);
    at = Math.max(at, row.end);
  }
  tokens.plain(characters.slice(at).join(""));
  const { surprisal, mean, perplexity, tokens: count } = answer.total;
  if (surprisal === null) return `${count} tokens, none with a surprisal.`;
  return `${count} tokens, ${surprisal.toFixed(2)} bits, ${mean.toFixed(3)} each on average; perplexity ${perplexity.toFixed(2)}.`;
}

/** Runs `work` while its button waits, and says in `status` what came of it. */
export async function busy(button, status, work) {
  alertUser("");
  button.disabled = true;
  status.textContent = "Working…";
  try {
    status.textContent = await work();
  } catch (error) {
    status.textContent = describe(error);
  }
  button.disabled = false;
}

/** Listens to the forms. */
export function startTexts() {
  const stop = byId("sample-stop");
  byId("sample-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    const abort = new AbortController();
    stop.onclick = () => abort.abort();
    stop.disabled = false;
    const hadFocus = document.activeElement === byId("sample-start");
    const done = busy(byId("sample-start"), byId("sample-status"), () => sample(abort.signal));
    if (hadFocus) stop.focus(); // else a keyboard user would be nowhere while the other button waits
    await done;
    const stopHadFocus = document.activeElement === stop;
    stop.disabled = true;
    if (stopHadFocus) byId("sample-start").focus();
  });
  byId("score-form").addEventListener("submit", (event) => {
    event.preventDefault();
    busy(byId("score-start"), byId("score-status"), score);
  });
}
