// The facts of /bundle.json: signature, steps, engines, digests, environment.

import { get, make, pairs, table } from "./dom.js";
import { typeOf } from "./form.js";
import { dump } from "./text.js";

const STATES = { ready: ["good", "ready"], loading: ["warn", "loading the model"], draining: ["warn", "stopping"] };
const sizeOf = (bytes) => (bytes < 1e5 ? `${(bytes / 1e3).toFixed(1)} kB` : `${(bytes / 1e6).toFixed(1)} MB`);
const code = (text) => make("code", {}, String(text));

/** The line below the name. */
export function summarize({ name, state, trouble, version, engine, digest }) {
  document.title = name;
  get("name").textContent = name;
  const [kind, words] = trouble ? ["bad", "failed"] : STATES[state] ?? ["warn", state];
  const parts = [make("strong", { className: kind }, words), ...(version ? [`version ${version}`] : []), `engine ${engine}`, code(`${digest.slice(0, 19)}…`)];
  get("summary").replaceChildren(...parts.flatMap((part, at) => (at ? [" · ", part] : [part])));
}

export function show(bundle) {
  const { signature, steps, engines, engine } = bundle;
  const fields = (title, list) => [make("h3", {}, title), list?.length
    ? table(["Name", "Type", ""], list.map((spec) => [code(spec.name ?? "unnamed"), typeOf(spec), note(spec)]), { caption: title })
    : make("p", { className: "faint" }, "Not specified by the model.")];
  get("bundle").replaceChildren(
    make("div", { className: "pair" },
      make("div", {}, ...fields("Input", signature.inputs)),
      make("div", {}, ...fields("Output", signature.outputs)),
      ...(signature.params ? [make("div", {}, ...fields("Parameters", signature.params))] : [])),
    ...(steps ? [make("h3", {}, "Steps"), make("ol", { className: "flow" }, ...steps.map(stepOf))] : []),
    ...(engines ? [make("h3", {}, "Engines, the fastest first"), table(["Engine", "Rows/s", "Agreement measured at the build", ""],
      engines.map((each) => [code(each.name), each.rows_per_second ? Number(each.rows_per_second).toFixed(0) : "–", each.agreement ?? "–",
        [each.name === engine ? "in use" : "", each.runs_code ? "runs the model’s code" : ""].filter(Boolean).join(", ")]),
      { numeric: (at) => at === 1, caption: "Engines" })] : []),
    make("h3", {}, "Identity"),
    pairs([["model", code(bundle.uri)], ["model digest", code(bundle.digest)], ["build digest", bundle.build && code(bundle.build)],
      ["size", bundle.bytes && sizeOf(Number(bundle.bytes))], ["includes", bundle.references?.join(", ")],
      ["rows", { true: "independent: batched across requests", false: "may depend on each other: never batched" }[bundle.row_wise]]]),
    ...(bundle.requirements || bundle.python ? [make("h3", {}, "Environment of the model"),
      pairs([["Python", bundle.python], ["packages", bundle.requirements && make("ul", { className: "packages" }, ...bundle.requirements.map((each) => make("li", {}, code(each))))]])] : []),
  );
}

function note(spec) {
  if ("default" in spec) return `default ${dump(spec.default)}`;
  return spec.required === false ? "optional" : "";
}

function stepOf({ step, ...settings }) {
  const list = Object.entries(settings).filter(([, value]) => value !== null).map(([name, value]) => `${name} ${typeof value === "string" ? value : dump(value)}`);
  return make("li", {}, make("strong", {}, String(step)), make("small", { className: "faint" }, list.join(", ")));
}
