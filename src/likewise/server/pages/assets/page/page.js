// The page at `/`: asks for the token if there is one, then shows the form, the charts and the bundle.

import { Answer, predictionsIn, steps } from "./answer.js";
import * as bundle from "./bundle.js";
import * as charts from "./charts.js";
import { get, make } from "./dom.js";
import * as form from "./form.js";
import { call, keep, Refused, remembered } from "./server.js";
import { snippet } from "./snippets.js";
import { dump, parse } from "./text.js";

const HISTORY = 20;
const LARGEST = 20000; // characters of an entry of the history, and of a body on the page
let poll, stop;

// --- the model, and the token that its server may need ---------------------------------------------------------------

async function load() {
  try {
    const facts = parse((await call("bundle.json")).text);
    bundle.summarize(facts);
    bundle.show(facts);
    get("trouble").textContent = facts.trouble ? `The model cannot be used: ${facts.trouble}` : "";
    get("trouble").hidden = !facts.trouble;
    if (get("page").hidden) {
      get("unlock").hidden = true;
      get("page").hidden = false;
      if (!get("fields").children.length) form.build(facts);
      form.showMode();
      poll = poll ?? charts.start(locked);
      poll();
    }
    if (facts.state !== "ready") setTimeout(load, facts.trouble ? 10000 : 1000);
  } catch (error) {
    if (locked(error)) return;
    get("trouble").textContent = error.message;
    get("trouble").hidden = false;
    setTimeout(load, 2000);
  }
}

/** Ask for the token if the error is that it is missing or wrong. */
function locked(error) {
  if (error.status !== 401) return false;
  if (get("unlock").hidden) {
    ask(remembered("token") ? explained(error) : "");
  }
  return true;
}

function ask(why) {
  get("refused").textContent = why;
  get("page").hidden = true;
  get("unlock").hidden = false;
  get("token").value = "";
  get("token").focus();
}

const explained = ({ code, message, remedy }) => `${code ? `${code}: ` : ""}${message}${remedy ? `. Remedy: ${remedy}` : ""}`;

get("unlock").addEventListener("submit", (event) => {
  event.preventDefault();
  keep("token", get("token").value.trim());
  get("unlock").hidden = true;
  load();
});

// --- requests --------------------------------------------------------------------------------------------------------

get("try").addEventListener("submit", async (event) => {
  event.preventDefault();
  const started = { ...form.snapshot(), at: new Date().toLocaleTimeString([], { hour12: false }), file: get("file").files[0]?.name };
  clear("Sending…");
  let outcome;
  try {
    outcome = await send(await form.requests());
  } catch (error) {
    outcome = failed(error);
  }
  remember({ ...started, ...outcome });
});

function clear(status) {
  get("status").replaceChildren(status);
  for (const id of ["error", "answer"]) get(id).replaceChildren();
  get("raw-answer").hidden = true;
}

/** Send the requests one after the other; returns what the history shows. */
async function send({ chunks, cells }) {
  const answer = new Answer(cells);
  const total = chunks.reduce((sum, { rows }) => sum + rows, 0);
  const controller = new AbortController();
  stop = () => controller.abort();
  busy(true, total, chunks.length > 1);
  let done = 0, ms = 0, last, failure;
  try {
    for (const chunk of chunks) {
      last = { ...(await call("invocations", { ...chunk, signal: controller.signal })), sent: chunk.body };
      const { list, whole } = predictionsIn(last.text);
      if (whole || list.length !== chunk.rows) answer.sent = undefined; // not one prediction per row
      answer.add(list);
      [done, ms] = [done + chunk.rows, ms + last.ms];
      get("progress").value = done;
      if (chunks.length > 1) get("status").textContent = `${done} of ${total} rows`;
    }
  } catch (error) {
    failure = error;
  }
  busy(false);
  if (answer.rows.length) show(answer, chunks.length === 1 ? last : undefined);
  if (failure) return failed(controller.signal.aborted ? new Error(`cancelled after ${done} of ${total} rows`) : inFile(failure, done), cells);
  const status = `200 OK in ${ms.toFixed(0)} ms`;
  get("status").replaceChildren(make("strong", { className: "good" }, status), ` ${total > 1 ? `for ${total} rows ` : ""}`,
    make("small", { className: "faint" }, last.id && `request ${last.id}`));
  return { status, summary: total > 1 ? `${total} rows` : answer.summary };
}

/** An error that names a row of its request names the row of the whole file; rows count from 0. */
function inFile(error, before) {
  if (error instanceof Refused) error.message = error.message.replace(/\brow (\d+)/, (_, row) => `row ${Number(row) + before}`);
  return error;
}

function busy(on, total = 1, long = false) {
  get("send").disabled = on;
  get("cancel").hidden = !(on && long);
  get("progress").hidden = !(on && long);
  Object.assign(get("progress"), { max: total, value: 0 });
}

function failed(error) {
  const status = error instanceof Refused ? error.heading : "Not completed";
  get("status").replaceChildren(make("strong", { className: "bad" }, status));
  const lines = [`${error.code ? `${error.code}: ` : ""}${error.message}`, ...(error.remedy ? [`Remedy: ${error.remedy}`] : [])];
  get("error").replaceChildren(...lines.map((line) => make("p", {}, line)));
  locked(error);
  return { status, summary: error.message.slice(0, 80), failed: true };
}

function show(answer, response) {
  const parts = [answer.element()];
  if (response) parts.push(steps(response.timing, response.ms));
  if (answer.rows.length > 1 || answer.sent) parts.push(make("button", { type: "button", className: "plain", id: "download", onclick: () => download(answer) }, "Download as CSV"));
  get("answer").replaceChildren(...parts);
  get("raw-answer").hidden = !response;
  if (response) {
    get("body").textContent = dump(parse(response.text), 2).slice(0, LARGEST);
    get("sent").textContent = response.sent.slice(0, LARGEST);
  }
}

function download(answer) {
  const href = URL.createObjectURL(new Blob([answer.csv()], { type: "text/csv" }));
  make("a", { href, download: "predictions.csv" }).click();
  setTimeout(() => URL.revokeObjectURL(href), 10000);
}

get("cancel").addEventListener("click", () => stop());
get("try").addEventListener("change", (event) => { if (event.target.name === "mode") form.showMode(); });
get("try").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !get("send").disabled) get("try").requestSubmit();
});

// --- code ------------------------------------------------------------------------------------------------------------

async function code() {
  if (!get("code").open) return;
  try {
    const { chunks } = await form.requests();
    const language = get("language").value;
    const part = chunks.length > 1 ? `${language === "javascript" ? "//" : "#"} the first ${chunks[0].rows} rows\n` : "";
    get("snippet").textContent = part + snippet(language, chunks[0]);
  } catch (error) {
    get("snippet").textContent = error.message;
  }
}

get("code").addEventListener("toggle", code);
get("try").addEventListener("input", code);
get("copy").addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText(get("snippet").textContent);
    get("copied").textContent = "Copied";
  } catch { // only pages of https and of this machine may write there
    getSelection().selectAllChildren(get("snippet"));
    get("copied").textContent = "Selected: press Ctrl+C";
  }
});

// --- history ---------------------------------------------------------------------------------------------------------

function remember(entry) {
  const size = JSON.stringify(entry.values).length;
  keep("history", [size > LARGEST ? { ...entry, values: undefined } : entry, ...(remembered("history") ?? [])].slice(0, HISTORY));
  list();
}

function list() {
  const entries = (remembered("history") ?? []).map((entry) => {
    const what = { row: "one row", table: "a table", file: entry.file ?? "a file" }[entry.mode];
    const text = [entry.at, what, entry.summary].filter(Boolean).join(" · ");
    const parts = [make("span", { className: entry.failed ? "bad" : "good" }, entry.status), " ", text];
    const again = entry.values && entry.mode !== "file";
    return make("li", {}, again ? make("button", { type: "button", className: "link", onclick: () => restore(entry) }, ...parts) : make("span", {}, ...parts));
  });
  get("history").replaceChildren(...(entries.length ? entries : [make("li", { className: "faint" }, "No requests yet.")]));
}

function restore(entry) {
  form.refill(entry);
  code();
  get("send").focus();
  get("try").scrollIntoView({ block: "start" });
}

list();
if (document.body.dataset.auth === "yes" && !remembered("token")) ask("");
else load();
