"use strict";
// The page's data and state, and the few helpers that every panel uses. Texts from the data are
// set as text, never as markup.

const DATA = JSON.parse(document.getElementById("data").textContent);
const PANELS = [];
const state = {run: 0, group: 0, target: 0, relative: false, pin: null, goal: null, ticks: null, keeps: new Map()};

// A panel: {name, title, on, draw(box, run), table(run), command(run)}; it is drawn again when one
// of the keys of the state changes that `on` names.
function panel(one) {
  PANELS.push(one);
}

function currentRun() {
  return DATA.runs[state.run];
}

function set(changes) {
  const changed = Object.keys(changes).filter((key) => state[key] !== changes[key]);
  Object.assign(state, changes);
  if (!changed.length) return;
  // A target of one curve is none of another's.
  if (!changed.includes("goal") && (changed.includes("group") || changed.includes("target"))) state.goal = null;
  if (changed.includes("run")) drawAll();
  else PANELS.forEach((one) => changed.some((key) => one.on.includes(key)) && redraw(one));
  drawTop(changed);
}

function redraw(one) {
  const box = document.getElementById(`panel-${one.name}`);
  const data = currentRun().panels[one.name];
  box.hidden = !data;
  if (!data) return;
  const body = box.querySelector(".body"), focused = document.activeElement;
  const again = body.contains(focused) ? focused.dataset.key : null;
  const scrolled = [...body.querySelectorAll(".scroll")].map((each) => each.scrollTop);
  const open = [...body.querySelectorAll("details")].map((each) => each.open);
  body.replaceChildren();
  one.draw(body, data, currentRun());
  body.querySelectorAll("details").forEach((each, i) => (each.open ||= Boolean(open[i])));
  body.querySelectorAll(".scroll").forEach((each, i) => (each.scrollTop = scrolled[i] || 0));
  box.hidden = !body.textContent && !body.querySelector("svg");
  if (again) {
    const next = [...body.querySelectorAll("[data-key]")].find((e) => e.dataset.key === again);
    if (next) next.focus({preventScroll: true});
  }
}

// Texts as they are shown: what would turn the reading order, and so the figures behind it, is
// written out.
function plain(text) {
  return String(text).replace(/[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g,
    (sign) => `\\u${sign.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

// An element: `on…` are listeners, `text` its text, the others its properties or attributes.
function el(tag, given = {}, children = []) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(given)) {
    if (value === undefined || value === null) continue;
    if (key === "text") node.textContent = plain(value);
    else if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key === "key") node.dataset.key = value;
    else if (key in node && key !== "list") node[key] = value;
    else node.setAttribute(key, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined)
    .map((child) => (child instanceof Node ? child : plain(child))));
  return node;
}

function list(items, kind) {
  return items && items.length
    ? el("ul", {className: kind}, items.map((text) => el("li", {text})))
    : null;
}

function fixed(value, digits = 4) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  return Number.isFinite(value) ? value.toFixed(digits).replace(/^-/, "−") : value > 0 ? "∞" : "−∞";
}

function signed(value, digits = 4) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  return (value >= 0 ? "+" : "") + fixed(value, digits);
}

function chanceText(chance) {
  if (chance === null || chance === undefined) return "–";
  if (chance > 0.99) return "over 99 %";
  return chance < 0.01 ? "under 1 %" : `${Math.round(100 * chance)} %`;
}

// What the merges of the group in view are held against.
function baseOf(run, group = state.group) {
  const size = group < 0 || !run.groups[group] ? null : run.groups[group].n_params;
  const bases = run.merges.filter((one) => one.g < 0);
  return bases.find((one) => one.n === size) || (bases.length === 1 ? bases[0] : null);
}

function mergesIn(run, group = state.group) {
  return run.merges.filter((one) => one.g === group);
}

function nameOf(run, one) {
  if (!one.k) return "the base";
  if (!one.x.length) return `any ${one.k} experts`;
  if (!one.w) return one.x.map((place) => run.experts[place]).join("+");
  return one.x.map((place, i) => `${run.experts[place]} ${+one.w[i].toPrecision(3)}`).join(", ");
}

// A value as it is shown: itself, or its difference from the base.
function shownValue(run, value, group = state.group) {
  const base = baseOf(run, group);
  if (value === null || value === undefined) return null;
  if (!state.relative || !base || base.v[state.target] === null) return value;
  return value - base.v[state.target];
}

function isRelative(run) {
  const base = baseOf(run);
  return state.relative && Boolean(base) && base.v[state.target] !== null;
}

function valueLabel(run) {
  const target = run.targets[state.target];
  const what = target.metric ? target.label : `loss, ${target.label} (nats per token)`;
  return isRelative(run) ? `${what}, less the base's` : what;
}

function color(group) {
  return group < 0 ? "var(--soft)" : `var(--c${group % 6})`;
}

const predictors = new Map();
// The law of single subsets of a group and a target; null where the page has none.
function lawOf(run, group = state.group, target = state.target) {
  const law = run.panels.subsets && run.panels.subsets.laws
    ? run.panels.subsets.laws[`${group}:${target}`] : null;
  if (!law) return null;
  if (!predictors.has(law)) predictors.set(law, predictor(law));
  return {experts: law.experts, quantile: law.quantile, predict: predictors.get(law)};
}

// What a weighting gives: the mean of its seeds where it was measured, else predicted with its 90 % interval.
function valueOf(run, weights, group = state.group, target = state.target) {
  const same = mergesOf(run, weights, group).filter((one) => one.v[target] !== null);
  const whole = same.filter((one) => !one.p);
  if (whole.length)
    return {value: d3.mean(whole, (one) => one.v[target]), low: null, high: null, measured: whole};
  const chosen = target === 0 ? choiceOf(run, weights, group) : null;
  if (chosen) return {value: chosen.value, low: chosen.low, high: chosen.high, measured: null};
  // Scored on a part of the text: what that makes the law expect on the whole.
  const part = same.find((one) => one.p[target]);
  if (part) {
    const [value, half] = part.p[target];
    return {value, low: value - half, high: value + half, measured: null};
  }
  const law = lawOf(run, group, target);
  if (!law || Object.keys(weights).some((name) => !law.experts.includes(name))) return null;
  const found = law.predict(law.experts.map((name) => weights[name] || 0));
  const half = law.quantile * found.deviation;
  return {value: found.value, low: found.value - half, high: found.value + half, measured: null};
}

// The verdict's merge, or where the base or an expert is the answer the best merge: {group, weights,
// role}; null without a verdict.
function answerOf(run) {
  const lights = (run.panels.verdict && run.panels.verdict.lights) || [];
  const merge = (one) => one.k > 0 && one.group >= 0;
  return lights.find((one) => one.role.includes("chosen") && merge(one))
    || lights.find((one) => one.role.includes("best merge") && merge(one)) || null;
}

// What `select` expects of the best of its k: the lowest of many predictions is drawn up.
function choiceOf(run, weights, group) {
  const choices = run.panels.subsets && run.panels.subsets.choices && run.panels.subsets.choices[group];
  const names = Object.keys(weights);
  return ((choices && choices.by_size) || []).find((one) => one && !one.measured
    && Object.keys(one.weights).length === names.length
    && names.every((name) => Math.abs((one.weights[name] || 0) - weights[name]) < 1e-6)) || null;
}

// The merges of a weighting that were measured: several where it was merged by several seeds.
function mergesOf(run, weights, group) {
  const names = Object.keys(weights);
  return mergesIn(run, group).filter((one) => {
    if (one.x.length !== names.length || one.k !== names.length) return false;
    return one.x.every((place, i) => {
      const own = one.w ? one.w[i] : 1 / one.k;
      const theirs = weights[run.experts[place]];
      return theirs !== undefined && Math.abs(own - theirs) < 1e-6;
    });
  });
}

function equalWeights(names) {
  return Object.fromEntries(names.map((name) => [name, 1 / names.length]));
}

function weightsOf(run, one) {
  return Object.fromEntries(
    one.x.map((place, i) => [run.experts[place], one.w ? one.w[i] : 1 / one.k]));
}

function csvText(rows) {
  const cell = (value) => {
    let text = value === null || value === undefined ? "" : String(value);
    // A spreadsheet would take these for formulas.
    if (typeof value === "string" && /^[=+\-@\t\r]/.test(text)) text = `'${text}`;
    return /[",\n\r]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text;
  };
  return rows.map((row) => row.map(cell).join(",")).join("\n") + "\n";
}

// Without a clipboard, as in a page from a disk in some browsers, the text is shown to be copied.
async function copy(text, button) {
  try {
    await navigator.clipboard.writeText(text);
    const before = button.textContent;
    button.textContent = "copied";
    setTimeout(() => (button.textContent = before), 1200);
  } catch {
    const area = el("textarea", {value: text, rows: 8, cols: 60, readOnly: true});
    button.after(area);
    area.select();
  }
}
