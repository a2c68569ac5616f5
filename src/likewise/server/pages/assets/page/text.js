// JSON and CSV as text, without losing a digit: numbers keep the text that the server or the user wrote.

const MARK = `\u0001${Math.random()}:`; // no string of a document starts with it
const TOKEN = /"[^"\\]*(?:\\.[^"\\]*)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g;

/** A number as text. */
export class Exact {
  constructor(text) { this.text = text; }
  toString() { return this.text; }
}

/** Parse JSON; numbers become Exact. Throws SyntaxError. */
export function parse(text) {
  JSON.parse(text); // a document that is not JSON must not become one below
  const marked = text.replace(TOKEN, (token) => (token[0] === '"' ? token : `"\\u0001${MARK.slice(1)}${token}"`));
  return JSON.parse(marked, (_, value) =>
    typeof value === "string" && value.startsWith(MARK) ? new Exact(value.slice(MARK.length)) : value);
}

/** JSON text of what `parse` returns. indent: spaces per level, 0 for one line. */
export function dump(value, indent = 0, level = 0) {
  if (value instanceof Exact) return value.text;
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  const parts = Array.isArray(value)
    ? value.map((each) => dump(each, indent, level + 1))
    : Object.entries(value).map(([name, each]) => `${JSON.stringify(name)}: ${dump(each, indent, level + 1)}`);
  const [open, close] = Array.isArray(value) ? "[]" : "{}";
  const flat = Array.isArray(value) && value.every((each) => each === null || typeof each !== "object" || each instanceof Exact);
  if (!indent || !parts.length || flat) return open + parts.join(", ") + close;
  const pad = " ".repeat(indent * (level + 1));
  return `${open}\n${pad}${parts.join(`,\n${pad}`)}\n${" ".repeat(indent * level)}${close}`;
}

/** The records of delimited text (RFC 4180), each a list of cells; a blank line is one empty cell. */
export function records(text, delimiter) {
  const rows = [];
  let row = [], at = text[0] === "\ufeff" ? 1 : 0;
  while (at < text.length) {
    let cell = "";
    if (text[at] === '"') {
      const opened = at;
      for (;;) {
        const end = text.indexOf('"', at + 1);
        if (end < 0) throw new Error(`a quote in line ${text.slice(0, opened).split("\n").length} is not closed`);
        cell += text.slice(at + 1, end);
        at = end + 1;
        if (text[at] !== '"') break;
        cell += '"';
      }
    }
    const start = at;
    while (at < text.length && text[at] !== delimiter && text[at] !== "\n" && text[at] !== "\r") at++;
    row.push(cell + text.slice(start, at));
    if (text[at] === delimiter) {
      at++;
      if (at < text.length) continue;
      row.push("");
    }
    at += text.startsWith("\r\n", at) ? 2 : 1;
    rows.push(row);
    row = [];
  }
  return rows;
}

/** One record as a line of CSV. */
export function csvLine(cells) {
  const quoted = (cell) => (/[",\r\n]/.test(cell) || (cells.length === 1 && cell === "") ? `"${cell.replaceAll('"', '""')}"` : cell);
  return cells.map((cell) => quoted(String(cell))).join(",");
}
