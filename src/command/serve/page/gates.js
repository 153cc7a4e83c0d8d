// Gates as a heat map: sublayers down, the tokens of a text along, in lines that fit the page.

import { bar, byId, colorAt, css, element, model, send, viridis, visible } from "./dom.js";
import { busy } from "./text.js";

/** Pixels of a column, and of the sublayers' names. */
const COLUMN = 24;
const NAMES = 56;

/** The value that the lightest colour stands for: the greatest, rounded up to a twentieth. */
const end = (rows) => Math.max(0.05, Math.ceil(20 * Math.max(...rows.map((row) => Math.max(...row)))) / 20);

/** A map of one kind of gate. */
class HeatMap {
  #cells;
  #readout;
  #describe;

  constructor(title, tokens, rows, columns) {
    const most = end(rows);
    this.#describe = (row, column) =>
      `${visible(tokens[column].text)} (token ${column + 1}), sublayer ${row + 1}: ${rows[row][column].toFixed(4)}`
      + (tokens[column].unknown ? ", not in the vocabulary" : "");
    this.#cells = rows.map(() => []);
    this.#readout = element("p", { className: "readout", "aria-live": "polite" });
    const legend = element("div", { className: "legend" }, "0", bar(viridis()), `${most}`);
    const lines = element("div", { className: "scroll", role: "group", "aria-label": `${title}; arrow keys go from cell to cell` });
    for (let first = 0; first < tokens.length; first += columns) {
      lines.append(this.#line(tokens, rows, first, Math.min(tokens.length, first + columns), most));
    }
    this.#cells[0][0].tabIndex = 0;
    lines.addEventListener("pointerover", (event) => this.#show(event.target));
    lines.addEventListener("focusin", (event) => this.#show(event.target));
    lines.addEventListener("keydown", (event) => this.#move(event));
    this.parts = [element("h3", {}, title), legend, this.#readout, lines];
  }

  #line(tokens, rows, first, last, most) {
    const isLong = tokens.slice(first, last).some(({ text }) => visible(text).length > 2);
    const name = ({ text, unknown }) =>
      element("th", { scope: "col", className: `${isLong ? "long" : ""}${unknown ? " unknown" : ""}` }, visible(text));
    const row = (values, index) => {
      const cells = values.slice(first, last).map((value, offset) => this.#cell(index, first + offset, value, most));
      this.#cells[index].push(...cells);
      return element("tr", {}, element("th", { scope: "row", title: `sublayer ${index + 1}` }, `${index + 1}`), ...cells);
    };
    return element(
      "table", { className: "map" },
      element("caption", {}, `Tokens ${first + 1} to ${last}, sublayers 1 to ${rows.length}`),
      element("thead", {}, element("tr", {}, element("td"), ...tokens.slice(first, last).map(name))),
      element("tbody", {}, ...rows.map(row)),
    );
  }

  #cell(row, column, value, most) {
    const cell = element("td", { tabIndex: -1 }, value.toFixed(2));
    cell.style.backgroundColor = css(colorAt(viridis(), value / most));
    cell.dataset.row = row;
    cell.dataset.column = column;
    return cell;
  }

  #show({ dataset }) {
    if (dataset?.row === undefined) return;
    this.#readout.textContent = this.#describe(Number(dataset.row), Number(dataset.column));
  }

  #move(event) {
    const { row, column } = event.target.dataset;
    const steps = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0], Home: [0, -Infinity], End: [0, Infinity] };
    const step = steps[event.key];
    if (row === undefined || !step) return;
    event.preventDefault();
    const within = (at, count) => Math.min(count - 1, Math.max(0, at));
    const line = this.#cells[within(Number(row) + step[0], this.#cells.length)];
    const next = line[within(Number(column) + step[1], line.length)];
    event.target.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  }
}

async function read() {
  const result = byId("gates-result");
  result.replaceChildren();
  const body = { model: model(), text: byId("gates-input").value };
  const { tokens, stages } = await (await send("/page/gates", { body })).json();
  const columns = Math.max(4, Math.floor((result.clientWidth - NAMES) / COLUMN));
  for (const { name, transform, carry } of stages) {
    const maps = [[`Transform gates, ${name}`, transform], [`Carry gates, ${name}`, carry]];
    for (const [title, rows] of maps.filter(([, rows]) => rows.length > 0)) {
      result.append(...new HeatMap(title, tokens, rows, columns).parts);
    }
  }
  const means = stages.flatMap(({ transform }) => transform.map((row) => row.reduce((sum, gate) => sum + gate, 0) / row.length));
  return `${tokens.length} tokens; means of the transform gates by sublayer: ${means.map((mean) => mean.toFixed(3)).join(", ")}.`;
}

/** Listens to the form. */
export function startGates() {
  byId("gates-form").addEventListener("submit", (event) => {
    event.preventDefault();
    busy(byId("gates-start"), byId("gates-status"), read);
  });
}
