// The request in the form as code.

import { here, remembered } from "./server.js";

const shell = (text) => (/^[\w./:@%+=,-]+$/.test(text) ? text : `'${text.replaceAll("'", `'"'"'`)}'`);
const quoted = (text) => `'${text.replace(/[\\']/g, "\\$&").replaceAll("\n", "\\n").replaceAll("\r", "\\r")}'`; // Python, JavaScript
/** Code in the language that sends `body`. TOKEN is a placeholder: the token itself is not shown. */
export function snippet(language, { body, type }) {
  const url = new URL("invocations", here).href;
  const token = remembered("token") || document.body.dataset.auth === "yes" ? "Bearer TOKEN" : "";
  return { curl, python, javascript }[language](url, body, type, token);
}

function curl(url, body, type, token) {
  const headers = [...(token ? [`Authorization: ${token}`] : []), `Content-Type: ${type}`].map((each) => `-H ${shell(each)}`);
  return [`curl ${shell(url)}`, ...headers, `--data-raw ${shell(body)}`].join(" \\\n  ");
}

function python(url, body, type, token) {
  const headers = [...(token ? [["Authorization", token]] : []), ["Content-Type", type]];
  return `import json
import urllib.request

request = urllib.request.Request(
    ${quoted(url)},
    data=${quoted(body)}.encode(),
    headers={${headers.map((pair) => pair.map(quoted).join(": ")).join(", ")}},
)
with urllib.request.urlopen(request) as response:
    print(json.load(response))`;
}

function javascript(url, body, type, token) {
  const headers = [...(token ? [["Authorization", token]] : []), ["Content-Type", type]];
  return `const response = await fetch(${quoted(url)}, {
  method: 'POST',
  headers: {${headers.map((pair) => pair.map(quoted).join(": ")).join(", ")}},
  body: ${quoted(body)},
});
console.log(await response.json());`;
}
