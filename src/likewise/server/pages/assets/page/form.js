// The form: fields typed by the signature, and requests made of what is in it.

import { get, make } from "./dom.js";
import { csvLine, dump, parse, records } from "./text.js";

export const CHUNK = 200; // rows of a table or file per request
const NUMBER = /^-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?$/;
const KINDS = { string: "text", boolean: "boolean", datetime: "date", binary: "base64", integer: "number", long: "number", float: "number", double: "number" };
const JSON_TYPE = "application/json";

/** The type of a column or parameter in words. */
export function typeOf(spec) {
  const kind = spec.type ?? spec.dtype;
  if (kind === "tensor") return `tensor of ${spec["tensor-spec"]?.dtype} [${spec["tensor-spec"]?.shape ?? ""}]`;
  if (kind === "array") return `list of ${typeOf(spec.items ?? {})}`;
  if (kind === "map") return `map to ${typeOf(spec.values ?? {})}`;
  if (kind === "object") {
    return `object {${Object.entries(spec.properties ?? {}).map(([name, each]) => `${name}: ${typeOf(each)}`).join(", ")}}`;
  }
  return spec.shape ? `list of ${kind}` : String(kind);
}

let inputs = []; // the columns of the signature
let chunk = CHUNK;

/** Create the fields for the model's signature, filled with its example. */
export function build({ signature, example, by_column: byColumn, row_wise: rowWise }) {
  chunk = rowWise === false ? Infinity : CHUNK; // predictions of rows that depend on each other need all of them in one request
  inputs = signature.inputs ?? [];
  const fields = byColumn
    ? inputs.map((spec) => control(spec, example?.record?.[spec.name], "columns"))
    : [make("div", {}, make("label", { htmlFor: "raw" }, "Body", make("span", {}, "JSON")),
      area("raw", { kind: "json" }, dump(example?.body ?? {}), 8))];
  get("fields").className = fields.length > 1 ? "pair" : "";
  get("fields").replaceChildren(...fields);
  const params = byColumn ? signature.params ?? [] : [];
  get("params").append(make("div", { className: "pair" }, ...params.map((spec) => control(spec, spec.default, "params"))));
  get("params").dataset.any = params.length ? "1" : "";
}

const area = (id, data, text, rows) => make("textarea", { id, data, rows, value: text, defaultValue: text, spellcheck: false });

function control(spec, value, part) {
  const kind = spec.shape ? "json" : KINDS[spec.type] ?? "json";
  const optional = part === "params" || !spec.required;
  const text = value === undefined || value === null ? "" : kind !== "json" && typeof value === "string" ? value : dump(value);
  const id = `${part}-${spec.name}`;
  const data = { part, kind, name: spec.name, initial: text, ...(optional ? { optional: "1" } : {}) };
  const note = typeOf(spec) + (optional && part === "columns" ? ", optional" : "");
  const hints = kind === "number" ? { inputMode: "decimal" } : kind === "date" ? { placeholder: "2026-01-31T09:30:00" } : {};
  const field = kind === "boolean"
    ? make("select", { id, data }, ...(optional ? [""] : []).concat("true", "false").map((each) => make("option", { selected: each === text }, each)))
    : kind === "text" || kind === "json"
      ? area(id, data, text, text.length > 240 ? 6 : text.length > 60 || part === "columns" ? 3 : 1)
      : make("input", { id, data, value: text, ...hints });
  return make("div", {}, make("label", { htmlFor: id }, spec.name, make("span", {}, note)), field);
}

/** The field's value as JSON text, so that numbers keep all digits; undefined if it is omitted. */
function literal({ dataset: { kind, optional, name }, value }) {
  const text = kind === "text" ? value : value.trim();
  if (text === "" && optional) return undefined;
  if (kind === "text") return JSON.stringify(text);
  if (text === "") return "null";
  if (kind === "json") {
    try { JSON.parse(text); } catch (error) { throw new Error(`${name}: not JSON: ${error.message}`); }
    return text;
  }
  return kind === "boolean" || (kind === "number" && NUMBER.test(text)) ? text : JSON.stringify(text);
}

function members(part) {
  const fields = [...document.querySelectorAll(`[data-part="${part}"]`)].map((field) => [field.dataset.name, literal(field)]);
  return `{${fields.filter(([, text]) => text !== undefined).map(([name, text]) => `${JSON.stringify(name)}: ${text}`).join(", ")}}`;
}

const recordsBody = (rows) => {
  const params = members("params");
  return `{"dataframe_records": [${rows.join(", ")}]${params === "{}" ? "" : `, "params": ${params}`}}`;
};

/** Whether a parameter is not the default, which CSV cannot say. */
const changed = () => [...document.querySelectorAll('[data-part="params"]')].some(({ dataset, value }) => value !== dataset.initial);

/** A row of a table as a JSON object, with the types of the columns; the server reads the texts that fit none. */
function record(names, cells) {
  if (cells.length !== names.length) throw new Error(`a row has ${cells.length} values, and there are ${names.length} columns: ${csvLine(cells)}`);
  const texts = names.map((name, at) => {
    const [kind, cell] = [KINDS[inputs.find((spec) => spec.name === name)?.type ?? "string"] ?? "json", cells[at]];
    const plain = kind === "number" ? NUMBER.test(cell.trim()) : kind === "json" && isJson(cell);
    return `${JSON.stringify(name)}: ${cell === "" && kind !== "text" ? "null" : plain ? cell.trim() : JSON.stringify(cell)}`;
  });
  return `{${texts.join(", ")}}`;
}

function isJson(text) {
  try { JSON.parse(text); } catch { return false; }
  return true;
}

export const mode = () => document.querySelector("[name=mode]:checked").value;

/**
 * What is in the form as requests: {chunks: [{body, type, rows}], cells}, where cells are the rows' own columns
 * ({names, rows}) for tables. Throws Error if it cannot be sent.
 */
export async function requests() {
  if (mode() === "row") {
    const body = get("raw")?.value ?? recordsBody([members("columns")]);
    return { chunks: [{ body, type: JSON_TYPE, rows: 1 }] };
  }
  if (mode() === "table") return tabular(get("pasted").value, delimiterOf(get("pasted").value));
  const file = get("file").files[0];
  if (!file) throw new Error("choose a file first");
  const text = await file.text();
  if (/\.(jsonl|ndjson)$/i.test(file.name)) return jsonLines(text);
  return tabular(text, /\.tsv$/i.test(file.name) ? "\t" : ",");
}

function jsonLines(text) {
  const lines = text.replace(/^\ufeff/, "").split(/\r?\n/).map((line, at) => [line.trim(), at + 1]).filter(([line]) => line);
  const rows = lines.map(([line, number]) => {
    let row;
    try { row = parse(line); } catch (error) { throw new Error(`line ${number} is not JSON: ${error.message}`); }
    if (row === null || typeof row !== "object" || Array.isArray(row)) throw new Error(`line ${number} is not an object with columns`);
    return row;
  });
  const names = [...new Set(rows.flatMap(Object.keys))];
  const chunks = inChunks(lines.map(([line]) => line), (part) => ({ body: recordsBody(part), type: JSON_TYPE }));
  return { chunks, cells: { names, rows: rows.map((row) => names.map((name) => row[name])) } };
}

/** A tab if there is one in the first line; else a comma, unless the model has one column, whose values may have commas. */
function delimiterOf(text) {
  const [first] = text.split("\n", 1);
  if (first.includes("\t")) return "\t";
  const names = first.trim().split(",");
  return inputs.length === 1 && !(names.length > 1 && names.includes(inputs[0].name)) ? "\t" : ",";
}

function tabular(text, delimiter) {
  const [first, ...rest] = records(text, delimiter).filter((row, at) => at === 0 || row.length > 1 || row[0] !== "" || inputs.length === 1);
  if (!first) throw new Error("there are no rows");
  const known = inputs.map(({ name }) => name);
  const named = !known.length || known.includes(undefined) || first.some((cell) => known.includes(cell)) || first.length !== known.length;
  const lower = known.map((name) => String(name).toLowerCase());
  if (!named && first.some((cell) => lower.includes(cell.trim().toLowerCase()))) {
    throw new Error(`the first line has none of the model's columns (${known.join(", ")}), but one like them: correct its names`);
  }
  const [names, rows] = named ? [first, rest] : [known, [first, ...rest]];
  if (!rows.length) throw new Error("there are no rows below the names of the columns");
  return {
    chunks: inChunks(rows, changed()
      ? (part) => ({ body: recordsBody(part.map((row) => record(names, row))), type: JSON_TYPE })
      : (part) => ({ body: `${[names, ...part].map(csvLine).join("\n")}\n`, type: "text/csv" })),
    cells: { names, rows },
  };
}

function inChunks(rows, request) {
  const size = Math.min(chunk, rows.length);
  const starts = Array.from({ length: Math.ceil(rows.length / size) }, (_, at) => at * size);
  return starts.map((at) => ({ ...request(rows.slice(at, at + size)), rows: Math.min(size, rows.length - at) }));
}

/** What is in the form, for the history; a file's content is not kept. */
export function snapshot() {
  const fields = [...document.querySelectorAll("#fields [id], #params [id], #pasted")].filter(({ value }) => value !== undefined);
  return { mode: mode(), values: Object.fromEntries(fields.map((field) => [field.id, field.value])) };
}

export function refill({ mode: kind, values }) {
  document.querySelector(`[name=mode][value=${kind}]`).checked = true;
  for (const [id, value] of Object.entries(values)) if (get(id)) get(id).value = value;
  showMode();
}

export function showMode() {
  for (const each of document.querySelectorAll("[data-mode]")) each.hidden = each.dataset.mode !== mode();
  get("params").hidden = !get("params").dataset.any;
}
