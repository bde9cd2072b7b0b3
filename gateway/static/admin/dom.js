/** Elements, from text only: nothing here is ever read as HTML, as names and payloads are hostile. */

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** An element: `h("a", { href: "#/", onclick: … }, "text", child)`. */
export function h(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** The same in SVG. */
export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

export const $ = (selector) => document.querySelector(selector);

/** Set a text, and leave the page alone where it is there already. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** A name in a sentence: whatever direction it asks for, what is around it keeps its own. */
export const name = (text) => h("bdi", {}, text);

/** Say briefly what has happened, in a text or a list of texts and elements. */
export function toast(content, bad = false) {
  const note = h("p", { class: bad ? "bad" : "" }, ...[content].flat());
  $("#toasts").append(note);
  setTimeout(() => note.remove(), bad ? 8000 : 4000);
}

/** Ask before something that cannot be taken back. The title may be a list, as in `toast`. */
export function confirm(title, text, action) {
  const dialog = $("#confirm");
  $("#confirm-title").replaceChildren(...[title].flat());
  setText($("#confirm-text"), text);
  setText($("#confirm-yes"), action);
  dialog.showModal();
  $("#confirm-no").focus();
  return new Promise((resolve) => {
    let agreed = false;
    $("#confirm-yes").onclick = () => {
      agreed = true;
      dialog.close();
    };
    $("#confirm-no").onclick = () => dialog.close();
    dialog.onclose = () => resolve(agreed);
  });
}
