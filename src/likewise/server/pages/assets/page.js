"use strict";
(() => {
  const here = location.href.replace(/[?#].*$/, "").replace(/\/?$/, "/"); // also if the page is mounted without a trailing slash
  for (const link of document.querySelectorAll("a[data-here]")) link.href = new URL(link.getAttribute("href"), here);
  if (/^[\w.:/%~-]+$/.test(here)) { // safe in a shell; behind a proxy only the browser knows the address
    for (const pre of document.querySelectorAll("pre[data-url]")) {
      pre.textContent = pre.textContent.replaceAll(pre.dataset.url, here.slice(0, -1));
    }
  }
  const form = document.getElementById("try");
  if (!form) return;
  const get = (id) => document.getElementById(id);
  const number = /^-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?$/;

  // The field's value as JSON text, so that 64-bit numbers keep all digits; undefined if it is omitted.
  const literal = (field) => {
    const { kind, optional } = field.dataset;
    const text = kind === "text" ? field.value : field.value.trim();
    if (text === "" && optional) return undefined;
    if (kind === "text") return JSON.stringify(text);
    if (text === "") return "null";
    if (kind === "json") {
      try { JSON.parse(text); } catch (error) { throw new Error(`${field.name}: not JSON: ${error.message}`); }
      return text;
    }
    return kind === "boolean" || (kind === "number" && number.test(text)) ? text : JSON.stringify(text);
  };
  const members = (part) => {
    const pairs = [...form.querySelectorAll(`[data-part="${part}"]`)].map((field) => [field.name, literal(field)]);
    return pairs.filter(([, value]) => value !== undefined).map(([name, value]) => `${JSON.stringify(name)}: ${value}`);
  };
  const body = () => {
    const raw = get("raw");
    if (raw) return raw.value;
    const params = members("params");
    const tail = params.length ? `, "params": {${params.join(", ")}}` : "";
    return `{"dataframe_records": [{${members("columns").join(", ")}}]${tail}}`;
  };
  const pretty = (text) => {
    if (/\d{16}/.test(text)) return text; // JSON.parse would round such numbers
    try { return JSON.stringify(JSON.parse(text), null, 2); } catch { return text; }
  };
  const show = (good, status, lines, text, sent, id = "") => {
    get("status").textContent = status;
    get("status").className = good ? "good" : "bad";
    get("why").replaceChildren(...lines.map((line) => Object.assign(document.createElement("p"), { textContent: line })));
    get("request").textContent = id && `request ${id}`;
    get("body").textContent = text;
    get("body").hidden = text === "";
    get("sent").textContent = sent;
    get("sent").parentElement.hidden = sent === "";
    get("answer").hidden = false;
  };
  const explained = (text) => {
    try {
      const { error_code: code, message, remedy } = JSON.parse(text);
      return code ? [`${code}: ${message}`, `Remedy: ${remedy}`] : [];
    } catch { return []; }
  };

  form.hidden = false;
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    let sent = "";
    try { sent = body(); } catch (error) { show(false, "Not sent", [error.message], "", ""); return; }
    const button = form.querySelector("button");
    button.disabled = true;
    const started = performance.now();
    try {
      const headers = { "Content-Type": "application/json" };
      const response = await fetch(new URL("invocations", here), { method: "POST", headers, body: sent });
      const text = await response.text();
      const took = `${response.status} ${response.statusText} in ${(performance.now() - started).toFixed(0)} ms`;
      const lines = response.ok ? [] : explained(text);
      show(response.ok, took, lines, lines.length ? "" : pretty(text), sent, response.headers.get("X-Request-Id") ?? "");
    } catch (error) {
      show(false, "No response", [`The server could not be reached: ${error.message}`], "", sent);
    } finally {
      button.disabled = false;
    }
  });
  form.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
})();
