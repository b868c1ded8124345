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
    el("h1", {text: `${run.name}: ${run.title || "what to merge"}`}),
    el("div", {className: "bar"}, [
      DATA.runs.length > 1 ? picker("run", "run", DATA.runs.map((one) => one.name)) : null,
      run.groups.length ? picker("method and size", "group", run.groups.map((one) => one.label)) : null,
      picker(run.groups.length ? "domain or metric" : "effects on", "target", run.targets.map((one) => one.label)),
      baseOf(run) ? el("label", {className: "row"}, [against, "against the base"]) : null,
    ]));
  if (again) {
    const next = top.querySelector(`[data-key="${again}"]`);
    if (next) next.focus();
  }
}

// Pictures as one file, each under its heading: colours are written out, since it has no style sheet.
function svgText(pictures) {
  const {color, backgroundColor} = getComputedStyle(document.querySelector("section.panel"));
  const all = d3.create("svg:svg"), back = all.append("rect").attr("fill", backgroundColor);
  let width = 0, height = 0;
  for (const picture of pictures) {
    const own = picture.viewBox.baseVal, heading = picture.parentElement.querySelector(":scope > h3");
    if (heading)
      all.append("text").attr("x", 8).attr("y", height += 24).attr("fill", color)
        .attr("font-family", "sans-serif").attr("font-size", "14px").text(heading.textContent);
    d3.select(all.node().appendChild(standalone(picture))).attr("y", height).attr("width", own.width).attr("height", own.height);
    width = Math.max(width, own.width);
    height += own.height;
  }
  for (const one of [all, back]) one.attr("width", width).attr("height", height);
  return new XMLSerializer().serializeToString(all.node());
}

function standalone(picture) {
  const copied = picture.cloneNode(true), own = [picture, ...picture.querySelectorAll("*")];
  [copied, ...copied.querySelectorAll("*")].forEach((element, i) => {
    const style = getComputedStyle(own[i]);
    element.removeAttribute("style");
    for (const name of ["fill", "stroke", "font-size", "font-family", "fill-opacity", "stroke-opacity"])
      element.setAttribute(name, style.getPropertyValue(name));
  });
  return copied;
}

function copyButtons(one, box) {
  const svgs = () => [...box.querySelectorAll(".body svg")];
  const button = (text, what) => el("button", {text, type: "button", title: `copy as ${text}`,
    onclick: (event) => copy(what(), event.currentTarget)});
  return el("div", {className: "copy"}, [
    one.picture === false ? null : button("SVG", () => svgText(svgs())),
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
  Object.assign(state, {group: 0, target: 0, pin: null, goal: null, ticks: null, keeps: new Map()});
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

document.addEventListener("keydown", (event) => event.key === "Escape" && set({pin: null, ticks: null}));

drawAll();
document.body.dataset.ready = "yes";
