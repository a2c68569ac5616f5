// Elements with properties and children; texts are only ever set as text.

export const get = (id) => document.getElementById(id);

export function make(tag, properties = {}, ...children) {
  const { data = {}, attributes = {}, ...rest } = properties;
  const element = Object.assign(document.createElement(tag), rest);
  Object.assign(element.dataset, data);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** A table in a box that scrolls sideways. cells: texts or elements; numeric: whether column i is right-aligned. */
export function table(heads, rows, { numeric = () => false, caption = "" } = {}) {
  const kind = (at) => (numeric(at) ? "number" : "");
  return make("div", { className: "wide", tabIndex: 0, attributes: { role: "group", "aria-label": caption } },
    make("table", {},
      make("thead", {}, make("tr", {}, ...heads.map((head, at) => make("th", { scope: "col", className: kind(at) }, head)))),
      make("tbody", {}, ...rows.map((row) => make("tr", {}, ...row.map((cell, at) => make("td", { className: kind(at) }, cell)))))));
}

/** A list of names and values; absent values are left out. */
export function pairs(list, className = "facts") {
  const shown = list.filter(([, value]) => value !== undefined && value !== null && value !== "");
  return make("dl", { className }, ...shown.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))));
}
