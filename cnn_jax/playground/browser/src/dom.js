// HTML elements from functions: h("button", {class: "play", onclick}, "Play").

const still = matchMedia("(prefers-reduced-motion: reduce)");

export function h(tag, properties = {}, ...children) {
  return fill(document.createElement(tag), properties, children);
}

export function svg(tag, properties = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), properties, children);
}

function fill(element, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (name.startsWith("aria-")) element.setAttribute(name, String(value));
    else if (value === false) continue;
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name in element && ["value", "checked", "selected", "disabled", "hidden"].includes(name)) element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

// A choice: options are [value, text] pairs or texts.
export function select(options, value, onchange, properties = {}) {
  const element = h(
    "select",
    { ...properties, onchange: (event) => onchange(event.target.value) },
    options.map((option) => {
      const [name, text] = Array.isArray(option) ? option : [option, option];
      return h("option", { value: name }, text);
    }),
  );
  element.value = value;
  return element;
}

// Changes the page by f, with what has a view-transition-name moving to its new place.
export function transition(f) {
  if (!document.startViewTransition || still.matches || document.hidden) return f();
  return document.startViewTransition(f);
}

export function scrollTo(element) {
  element.scrollIntoView({ block: "nearest", behavior: still.matches ? "auto" : "smooth" });
}

// Calls f with the files that are dropped on the element, after all others that it lies in.
export function onDrop(element, f) {
  element.addEventListener("dragover", (event) => (event.preventDefault(), element.classList.add("over")));
  element.addEventListener("dragleave", () => element.classList.remove("over"));
  element.addEventListener("drop", (event) => {
    event.preventDefault();
    event.stopPropagation();
    element.classList.remove("over");
    f([...event.dataTransfer.files], event.dataTransfer);
  });
}

// Runs f, which makes the controls of a container anew, and gives the focus back to the one of the
// same name, else to the one in the same place.
export function keepFocus(container, f) {
  const controls = () => [...container.querySelectorAll("button, select, input, [tabindex]")];
  const name = (control) => control.id || control.getAttribute("aria-label");
  const at = controls().indexOf(document.activeElement);
  const held = at < 0 ? null : name(document.activeElement);
  f();
  const now = controls();
  if (at >= 0) (now.find((each) => held && name(each) === held) ?? now[Math.min(at, now.length - 1)])?.focus({ preventScroll: true });
}
