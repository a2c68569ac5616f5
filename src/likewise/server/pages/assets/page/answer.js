// Predictions as a table: objects, and JSON inside of texts, are unfolded to columns; a column named label comes first.

import { make, pairs, table } from "./dom.js";
import { csvLine, dump, Exact, parse } from "./text.js";

const SHOWN = 200; // rows of a table on the page; the download has all
const CELL = 300; // characters of a cell in a table of several rows
const FIRST = [/label$/i, /score$|probability$/i, /language/i];
const VALUE = "prediction"; // the column of predictions without names

const isObject = (value) => value !== null && typeof value === "object" && !Array.isArray(value) && !(value instanceof Exact);
const isRows = (value) => Array.isArray(value) && value.length > 0 && value.every(isObject);

/** The predictions in a response as a list with one value per row; `whole` if they are not a list. */
export function predictionsIn(text) {
  const document = parse(text);
  const predictions = isObject(document) && "predictions" in document ? document.predictions : document;
  return Array.isArray(predictions) ? { list: predictions } : { list: [predictions], whole: true };
}

/** A prediction's values by column. */
export function unfold(value, name = "", found = new Map()) {
  if (typeof value === "string" && /^\s*[[{]/.test(value)) {
    try { value = parse(value); } catch { /* only looks like JSON */ }
  }
  if (Array.isArray(value) && value.length === 1 && !Array.isArray(value[0])) value = value[0];
  if (isObject(value)) {
    for (const [member, each] of Object.entries(value)) unfold(each, name ? `${name}.${member}` : member, found);
  } else {
    found.set(name || VALUE, value);
  }
  return found;
}

const place = (name) => (FIRST.findIndex((each) => each.test(name)) + 1 || FIRST.length + 1);

/** The last part of each name, if that is unique. */
export function brief(names) {
  const last = names.map((name) => name.split(".").at(-1));
  return names.map((name, at) => (last.indexOf(last[at]) === last.lastIndexOf(last[at]) ? last[at] : name));
}

/** All rows of an answer; cells: the rows that were sent. */
export class Answer {
  constructor(cells) {
    this.rows = [];
    this.sent = cells;
  }

  add(predictions) {
    for (const each of predictions) this.rows.push(unfold(each));
  }

  /** Names of the predictions' columns. */
  get names() {
    const names = [...new Set(this.rows.flatMap((row) => [...row.keys()]))];
    return names.sort((one, other) => place(one) - place(other)); // sort is stable
  }

  /** The columns: [name, value of row i]. Columns that were sent follow the predictions. */
  get columns() {
    const names = this.names;
    const sent = this.sent?.names.map((name, at) =>
      [names.includes(name) ? `input.${name}` : name, (row) => this.sent.rows[row]?.[at]]) ?? [];
    return [...names.map((name) => [name, (row) => this.rows[row].get(name)]), ...sent];
  }

  /** The answer as CSV, with the number of each row. */
  csv() {
    const columns = this.columns;
    const lines = this.rows.map((_, row) => csvLine([row, ...columns.map(([, value]) => plain(value(row)))]));
    return `${[csvLine(["row", ...columns.map(([name]) => name)]), ...lines].join("\r\n")}\r\n`;
  }

  /** The label or the only value of the first row, for the history. */
  get summary() {
    const [row] = this.rows;
    const name = this.names[0];
    return row && name !== undefined ? plain(row.get(name)).slice(0, 60) : "";
  }

  /** As an element: names and values of a single row, else a table. */
  element() {
    if (this.rows.length === 1 && !this.sent) return single(this.rows[0], this.names);
    const columns = this.columns;
    const shown = this.rows.slice(0, SHOWN).map((_, row) => [String(row), ...columns.map(([, value]) => cell(value(row), CELL))]);
    const numeric = columns.map(([, value]) => this.rows.slice(0, SHOWN).every((_, row) => isNumber(value(row))));
    const caption = this.rows.length > SHOWN ? `The first ${SHOWN} of ${this.rows.length} rows` : `${this.rows.length} rows`;
    return make("div", {}, make("p", { className: "faint" }, caption),
      table(["row", ...brief(columns.map(([name]) => name))], shown, { numeric: (at) => at === 0 || numeric[at - 1], caption }));
  }
}

const isNumber = (value) => value === null || value === undefined || value instanceof Exact || /^-?\d*\.?\d*(e[+-]?\d+)?$/i.test(value);

/** A value as text for a cell of CSV; nothing for null. */
function plain(value) {
  if (value === null || value === undefined) return "";
  return typeof value === "string" ? value : dump(value);
}

/** A value for a table's cell: a list of objects becomes a table itself. */
function cell(value, most = Infinity) {
  if (isRows(value)) {
    const inner = new Answer();
    inner.add(value);
    const { names, rows } = inner;
    const numeric = names.map((name) => rows.every((row) => isNumber(row.get(name))));
    return table(names, rows.slice(0, SHOWN).map((row) => names.map((name) => cell(row.get(name)))), { numeric: (at) => numeric[at], caption: "list" });
  }
  const text = plain(value);
  return text.length > most ? `${text.slice(0, most)}…` : text;
}

function single(row, names) {
  const [first, ...rest] = names;
  const shown = new Map(names.map((name, at) => [name, brief(names)[at]]));
  const value = row.get(first);
  const short = !isRows(value) && plain(value).length <= 60;
  const headline = short ? [make("p", { className: "headline" }, make("strong", {}, plain(value)), make("span", { className: "faint" }, shown.get(first)))] : [];
  return make("div", {}, ...headline, pairs((short ? rest : names).map((name) => [shown.get(name), cell(row.get(name))])));
}

/** What happened to the request, as far as the server states it; ms: until the response. */
export function steps(timing, ms) {
  const inMs = (name) => (timing[name] === undefined ? undefined : `${timing[name]} ms`);
  return pairs([["cache", timing.cache], ["tokens", timing.tokens], ["queue", inMs("queue")], ["engine", inMs("engine")], ["total", `${ms.toFixed(ms < 10 ? 1 : 0)} ms`]], "steps");
}
