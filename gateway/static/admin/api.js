/** What the page asks of the gateway. Addresses are relative: a proxy may put it under a path of its own. */

export class ApiError extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

const PATIENCE = 10_000; // ms

let signedOut = () => {};

/** Call this when the gateway does not know us any more. */
export function onSignedOut(callback) {
  signedOut = callback;
}

async function ask(path, options) {
  let response;
  try {
    response = await fetch(`api/${path}`, {
      credentials: "same-origin",
      cache: "no-store",
      signal: AbortSignal.timeout(PATIENCE),
      ...options,
    });
  } catch {
    throw new ApiError(0, 0, "The gateway does not answer.");
  }
  const body = await response.json().catch(() => ({}));
  if (response.ok) return body;
  if (response.status === 401 && path !== "login") signedOut();
  const { code = 0, message = `status ${response.status}` } = body.error ?? {};
  throw new ApiError(response.status, code, message);
}

/** @param {Record<string, string | number>} query */
export function get(path, query = {}) {
  const text = new URLSearchParams(query).toString();
  return ask(text ? `${path}?${text}` : path, {});
}

/** @param {object | string} body An object, or JSON as it is. */
export function post(path, body = {}) {
  const text = typeof body === "string" ? body : JSON.stringify(body);
  return ask(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: text });
}

/** A method of the HTTP API. */
export const call = (method, body) => post(`call/${method}`, body);
