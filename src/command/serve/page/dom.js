// What the parts of the page share: elements, requests, colours. Nothing from the server ever becomes markup.

/** An element with properties and children; texts stay texts. */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

export const byId = (id) => document.getElementById(id);

/** Shows what is wrong, or with an empty text nothing. */
export function alertUser(message) {
  byId("alert").textContent = message;
  byId("alert").hidden = !message;
}

/** What is wrong, for people. */
export function describe(error) {
  return error instanceof TypeError ? "The server cannot be reached." : error.message;
}

const TOKEN = "rhn-token";
export const rememberToken = (token) => sessionStorage.setItem(TOKEN, token);

/** The server asks for a token, or for another one. */
export class TokenWanted extends Error {}

/** Sends a request; an answer that is an error is thrown with the server's message. */
export async function send(path, { body, signal } = {}) {
  const headers = {};
  const token = sessionStorage.getItem(TOKEN);
  if (token) headers.Authorization = `Bearer ${token}`;
  if (body) headers["Content-Type"] = "application/json";
  const method = body ? "POST" : "GET";
  const response = await fetch(path, { method, headers, signal, body: body && JSON.stringify(body) });
  if (response.ok) return response;
  const problem = await response.json().catch(() => null);
  const message = problem?.error?.message ?? `The server answered ${response.status}.`;
  if (response.status !== 401) throw new Error(message);
  askForToken(token ? "That is not this server's token." : "");
  throw new TokenWanted(message);
}

function askForToken(problem) {
  alertUser(problem);
  if (!byId("token-form").hidden) return;
  byId("token-form").hidden = false;
  byId("token").focus();
}

/** The model that is chosen. */
export const model = () => byId("model").value;

// Viridis, and the upper half of the diverging scale, as rhn's pictures have them.
const VIRIDIS = [
  [68, 1, 84], [72, 24, 106], [71, 45, 123], [66, 64, 134], [59, 82, 139], [51, 99, 141], [44, 114, 142],
  [38, 130, 142], [33, 145, 140], [31, 160, 136], [40, 174, 128], [63, 188, 115], [94, 201, 98],
  [132, 212, 75], [173, 220, 48], [216, 226, 25], [253, 231, 37],
];
const ORANGE = [[246, 246, 246], [244, 180, 136], [213, 94, 0], [122, 44, 0]];

const dark = matchMedia("(prefers-color-scheme: dark)");

/** Calls back when the page's colours have changed. */
export const onColorScheme = (call) => dark.addEventListener("change", call);

/** From dark to light in viridis; the same on any background. */
export const viridis = () => VIRIDIS;

/** Away from the background: the farther, the more surprising. */
export function orange() {
  return dark.matches ? [Array(3).fill(32), ...ORANGE.slice(1).reverse()] : ORANGE;
}

/** The colour at a part, 0 to 1, of a scale. */
export function colorAt(scale, part) {
  const at = Math.min(1, Math.max(0, part)) * (scale.length - 1);
  const low = Math.min(Math.floor(at), scale.length - 2);
  return scale[low].map((value, index) => Math.round(value + (at - low) * (scale[low + 1][index] - value)));
}

export const css = (color) => `rgb(${color.join(" ")})`;

/** Black or white, whichever can be read better on a colour (WCAG 2, relative luminance). */
export function inkOn(color) {
  const linear = (part) => (part <= 10 ? part / 3294.6 : ((part / 255 + 0.055) / 1.055) ** 2.4);
  const light = 0.2126 * linear(color[0]) + 0.7152 * linear(color[1]) + 0.0722 * linear(color[2]);
  return light > 0.179 ? "black" : "white";
}

/** A bar of a scale's colours. */
export function bar(scale) {
  const made = element("span", { className: "bar", role: "img", "aria-label": "colours from the lowest to the highest" });
  made.style.background = `linear-gradient(to right, ${scale.map(css).join(", ")})`;
  return made;
}

/** A text on one line, with what cannot be seen made visible. */
export const visible = (text) => text.replaceAll("\n", "↵").replaceAll("\t", "⇥").replaceAll(" ", "␣") || "↵";

/** A table of texts in a region that scrolls; the first column is the head of its row. */
export function table(caption, head, rows) {
  const cell = (text, index) =>
    index === 0 ? element("th", { scope: "row" }, text) : element("td", {}, text);
  const headCell = (text, index) => element("th", { scope: "col", className: index === 0 ? "text" : "" }, text);
  const made = element(
    "table", {},
    element("caption", {}, caption),
    element("thead", {}, element("tr", {}, ...head.map(headCell))),
    element("tbody", {}, ...rows.map((row) => element("tr", {}, ...row.map(cell)))),
  );
  return element("div", { className: "scroll", role: "region", "aria-label": caption, tabIndex: 0 }, made);
}
