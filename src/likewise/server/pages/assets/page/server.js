// Requests to this server: below any prefix, with the token if there is one, and with errors as the server states them.

export const here = location.href.replace(/[?#].*$/, "").replace(/[^/]*$/, "");

/** Values of this tab; they last until the page is reloaded if the browser allows no storage. */
const kept = {};
export const keep = (name, value) => {
  kept[name] = value;
  try { sessionStorage.setItem(`${here} ${name}`, JSON.stringify(value)); } catch { /* blocked or full */ }
};
export const remembered = (name) => {
  try { return JSON.parse(sessionStorage.getItem(`${here} ${name}`)) ?? kept[name]; } catch { return kept[name]; }
};

/** A response that is not a success, or none (status 0). */
export class Refused extends Error {
  constructor(status, heading, message, remedy = "", code = "") {
    super(message);
    Object.assign(this, { status, heading, remedy, code });
  }
}

/** Send a request and return its text, request id, milliseconds and Server-Timing. Throws Refused. */
export async function call(path, { body, type, signal } = {}) {
  const headers = {};
  const token = remembered("token");
  if (token) headers.Authorization = `Bearer ${String.fromCharCode(...new TextEncoder().encode(token))}`;
  if (type) Object.assign(headers, { "Content-Type": type, "X-Likewise-Timing": "1" });
  const started = performance.now();
  let response, text;
  try {
    response = await fetch(new URL(path, here), { method: body === undefined ? "GET" : "POST", headers, body, signal, cache: "no-store" });
    text = await response.text();
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Refused(0, "No response", `The server could not be reached: ${error.message}`, "check that it is still running");
  }
  const ms = performance.now() - started;
  if (!response.ok) throw refused(response, text);
  return { text, ms, id: response.headers.get("X-Request-Id") ?? "", timing: timing(response.headers.get("Server-Timing") ?? "") };
}

function refused({ status, statusText }, text) {
  let stated = {};
  try { stated = JSON.parse(text) ?? {}; } catch { /* of a proxy */ }
  const heading = `${status} ${statusText}`.trim();
  return new Refused(status, heading, stated.message ?? text.slice(0, 500), stated.remedy, stated.error_code);
}

/** `queue;dur=1.2, cache;desc="hit"` as {queue: "1.2", cache: "hit"}. */
function timing(header) {
  const found = {};
  for (const [, name, , quoted, plain] of header.matchAll(/([\w-]+)\s*;\s*(dur|desc)=(?:"([^"]*)"|([^,;\s]*))/g)) {
    found[name] = quoted ?? plain;
  }
  return found;
}
