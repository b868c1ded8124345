"use strict";
// The bar at the top, the panels' frames, and the first drawing.

function option(value, text, chosen) {
  return el("option", {value, text, selected: value === chosen});
}

function picker(text, key, options) {
  const chosen = el("select", {key, onchange: (event) => set({[key]: +event.target.value})},
    options.map((one, i) => option(i, one, state[key])));
  return el("label", {text}, [chosen]);
}

function drawTop(changed) {
  if (changed && !changed.some((key) => ["run", "group", "target", "relative"].includes(key))) return;
  const run = currentRun(), top = document.getElementById("top");
  const again = top.contains(document.activeElement) ? document.activeElement.dataset.key : null;
  const against = el("input", {type: "checkbox", key: "relative", checked: state.relative,
    onchange: (event) => set({relative: event.target.checked})});
  top.replaceChildren(
    el("h1", {text: `${run.name}: what to merge`}),
    el("div", {className: "bar"}, [
      DATA.runs.length > 1 ? picker("run", "run", DATA.runs.map((one) => one.name)) : null,
      picker("method and size", "group", run.groups.map((one) => one.label)),
      picker("domain or metric", "target", run.targets.map((one) => one.label)),
      baseOf(run) ? el("label", {className: "row"}, [against, "against the base"]) : null,
    ]));
  if (again) {
    const next = top.querySelector(`[data-key="${again}"]`);
    if (next) next.focus();
  }
}

// A picture as a file of its own: colours are written out, since it has no style sheet.
function svgText(node) {
  const copied = node.cloneNode(true), own = [node, ...node.querySelectorAll("*")];
  [copied, ...copied.querySelectorAll("*")].forEach((element, i) => {
    const style = getComputedStyle(own[i]);
    for (const name of ["fill", "stroke", "font-size", "font-family", "fill-opacity"])
      element.setAttribute(name, style.getPropertyValue(name));
  });
  copied.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  return new XMLSerializer().serializeToString(copied);
}

function copyButtons(one, box) {
  const svgs = () => [...box.querySelectorAll(".body svg")];
  const button = (text, what) => el("button", {text, type: "button", title: `copy as ${text}`,
    onclick: (event) => copy(what(), event.currentTarget)});
  return el("div", {className: "copy"}, [
    one.picture === false ? null : button("SVG", () => svgs().map(svgText).join("\n")),
    one.table ? button("CSV", () => csvText(one.table(currentRun().panels[one.name], currentRun()))) : null,
    one.command ? button("command", () => one.command(currentRun().panels[one.name], currentRun())) : null,
  ]);
}

// The answer's group; of one with a few merges at other options, such as a scan's, the group of the
// same method that has most.
function firstGroup(run) {
  const lights = (run.panels.verdict && run.panels.verdict.lights) || [];
  const chosen = lights.find((one) => one.role.includes("chosen") && one.group >= 0);
  if (!chosen) return 0;
  const method = run.groups[chosen.group].method, size = run.groups[chosen.group].n_params;
  if (mergesIn(run, chosen.group).length > 2) return chosen.group;
  return Math.max(0, run.groups.findIndex((one) => one.method === method && one.n_params === size));
}

function drawAll() {
  const run = currentRun(), main = document.getElementById("panels");
  Object.assign(state, {group: 0, target: 0, pin: null, goal: null, ticks: null});
  predictors.clear();
  state.group = firstGroup(run);
  main.replaceChildren(...PANELS.map((one) => {
    const box = el("section", {className: "panel", id: `panel-${one.name}`, "aria-label": one.title});
    box.append(
      el("div", {className: "head"}, [el("h2", {text: one.title}), copyButtons(one, box)]),
      el("div", {className: "body"}));
    return box;
  }));
  drawTop();
  PANELS.forEach(redraw);
  if (run.notes.length)
    main.append(el("section", {className: "panel"}, [
      el("h2", {text: "Not on this page"}), list(run.notes, "notes")]));
}

let waiting = null;
let drawnFor = window.innerWidth;
window.addEventListener("resize", () => {
  clearTimeout(waiting);
  waiting = setTimeout(() => {
    if (window.innerWidth === drawnFor) return;
    drawnFor = window.innerWidth;
    PANELS.forEach(redraw);
  }, 150);
});

drawAll();
document.body.dataset.ready = "yes";
