"use strict";
// Beyond so many experts not all subsets are listed, but those that were measured or chosen.
const MOST_LISTED = 10;
const MOST_SHOWN = 400;
const sorting = {column: "value", down: false, find: ""};

panel({
  name: "subsets",
  title: "Subsets: any ticks and weights",
  on: ["group", "target", "relative", "pin", "ticks"],
  table: (data, run) => [["experts", "k", "value", "low", "high", "measured"],
    ...listedSubsets(run).map((one) => [one.name, one.k, one.value, one.low, one.high, Boolean(one.measured)])],
  draw(box, data, run) {
    if (data.missing) {
      box.append(el("p", {className: "soft", text: `no predictions: ${data.missing}`}));
      if (!mergesIn(run).some((one) => one.x.length)) return;
    }
    const split = el("div", {className: "split"}), left = el("div"), right = el("div");
    split.append(left, right);
    box.append(split);
    subsetTable(left, run);
    explorer(right, data, run);
    if (data.laws) front(box, run);
    const note = data.fits && data.fits[`${state.group}:${state.target}`];
    if (note) box.append(el("p", {className: "soft", text:
      `the law of single subsets explains ${Math.round(100 * Math.max(note.r2, 0))} % of the variance of merges that were left out; typical error ${fixed(note.error)}. `
        + "The best of each k stands with what is expected of it as the best of many, as `select` has it; the others by the law alone."}));
  },
});

function subsetsOf(names) {
  return d3.range(1, 2 ** names.length).map((bits) => names.filter((_, i) => (bits >> i) & 1));
}

function listedSubsets(run) {
  const law = lawOf(run), found = new Map();
  const add = (weights, name) => {
    const one = valueOf(run, weights);
    if (one && !found.has(name)) found.set(name, {...one, weights, name, k: Object.keys(weights).length});
  };
  for (const one of mergesIn(run)) if (one.x.length) add(weightsOf(run, one), nameOf(run, one));
  const choices = run.panels.subsets.choices && run.panels.subsets.choices[state.group];
  if (law && law.experts.length <= MOST_LISTED)
    subsetsOf(law.experts).forEach((names) => add(equalWeights(names), names.join("+")));
  else if (choices)
    choices.by_size.forEach((one) => one && add(one.weights, Object.keys(one.weights).sort().join("+")));
  return [...found.values()].filter((one) => kept(run, one.weights));
}

// Bounds that were set by the sliders of `--keep`.
function kept(run, weights) {
  const base = baseOf(run);
  for (const [place, limit] of state.keeps) {
    const one = valueOf(run, weights, state.group, place), sign = run.targets[place].higher ? -1 : 1;
    if (one && base && sign * one.value > sign * limit) return false;
  }
  return true;
}

function subsetTable(box, run) {
  const filter = el("input", {type: "search", placeholder: "find experts", key: "find", value: sorting.find, "aria-label": "find experts",
    oninput: (event) => { sorting.find = event.target.value; fill(); }});
  const ending = el("p", {className: "soft"}), body = el("tbody"), count = el("span", {className: "soft"});
  const columns = [["name", "experts"], ["k", "k"], ["value", state.relative ? "less the base" : "value"], ["half", "90 % ±"], ["state", "known as"]];
  const head = el("tr", {}, columns.map(([key, text]) => el("th", {className: key === "name" ? "name" : ""}, [
    el("button", {type: "button", text, "data-sort": key, onclick: () => {
      sorting.down = sorting.column === key ? !sorting.down : false;
      sorting.column = key;
      fill();
    }})])));
  const every = listedSubsets(run);
  box.append(el("div", {className: "bar noprint"}, [filter, count]),
    el("div", {className: "scroll"}, [el("table", {id: "subsets"}, [el("thead", {}, [head]), body])]), ending);
  function fill() {
    const words = sorting.find.toLowerCase().split(/[\s+,]+/).filter(Boolean);
    const sign = run.targets[state.target].higher && sorting.column === "value" ? -1 : 1;
    const wanted = every.filter((one) => words.every((word) => one.name.toLowerCase().includes(word)));
    const key = {name: (one) => one.name, k: (one) => one.k, value: (one) => sign * one.value,
      half: (one) => (one.low === null ? 0 : one.high - one.low), state: (one) => (one.measured ? 0 : 1)}[sorting.column];
    wanted.sort((a, b) => (sorting.down ? d3.descending : d3.ascending)(key(a), key(b)));
    count.textContent = `${wanted.length.toLocaleString("en")} merges, ${wanted.filter((one) => one.measured).length.toLocaleString("en")} measured`;
    const pinned = state.pin && Object.keys(state.pin).sort().join("+");
    ending.textContent = wanted.length > MOST_SHOWN ? `the first ${MOST_SHOWN} are shown; search for others` : wanted.length ? "" : "none: loosen the search or the bounds";
    body.replaceChildren(...wanted.slice(0, MOST_SHOWN).map((one, i) => el("tr", {
      className: one.name === pinned ? "click pinned" : "click", tabIndex: i ? -1 : 0, key: `row ${one.name}`,
      onclick: () => set({pin: one.weights, ticks: one.weights}),
      onkeydown: (event) => {
        const row = event.currentTarget;
        if (event.key === "Enter") set({pin: one.weights, ticks: one.weights});
        const near = {ArrowDown: row.nextElementSibling, ArrowUp: row.previousElementSibling}[event.key];
        if (near) {
          event.preventDefault();
          near.focus();
        }
      },
    }, [
      el("td", {className: "name", text: one.name}), el("td", {text: one.k}), el("td", {text: fixed(shownValue(run, one.value))}),
      el("td", {text: one.low === null ? "0" : fixed((one.high - one.low) / 2)}), el("td", {text: one.measured ? "measured" : "predicted"}),
    ])));
  }
  fill();
}

function explorer(box, data, run) {
  const law = lawOf(run), names = law ? law.experts : expertsIn(run);
  const ticks = state.ticks || startTicks(run, names);
  const free = data.choices && data.choices[state.group] && data.choices[state.group].weights_follow;
  const even = Object.values(ticks).every((weight) => Math.abs(weight * Object.keys(ticks).length - 1) < 1e-6);
  box.append(el("h3", {text: "Tick experts in and out"}));
  box.append(el("div", {className: "ticks"}, names.map((name) => el("label", {className: "row"}, [
    el("input", {type: "checkbox", key: `tick ${name}`, checked: name in ticks, onchange: (event) => {
      const next = Object.keys(ticks).filter((other) => other !== name);
      if (event.target.checked) next.push(name);
      if (next.length) set({ticks: equalWeights(next.sort())});
      else {
        event.target.checked = true;
        words.append(el("p", {className: "warned", text: "one expert at least"}));
      }
    }}), name]))));
  const found = valueOf(run, ticks), words = el("div", {id: "predicted"});
  if (found) {
    words.append(el("div", {className: "predicted", id: "predicted-value", text: found.low === null
      ? `${fixed(shownValue(run, found.value))} ${measuredText(found)}`
      : `${fixed(shownValue(run, found.value))} predicted, ${fixed(shownValue(run, found.low))} to ${fixed(shownValue(run, found.high))}`}));
    words.append(el("p", {className: "soft", text: `${valueLabel(run)}; interval 90 %, on this text`}));
  } else words.append(el("p", {className: "soft", text: "no prediction: this page carries no law of this group and domain"}));
  box.append(words);
  if (free && law) {
    box.append(el("h3", {text: "Weights"}));
    for (const name of Object.keys(ticks)) {
      const shown = el("span", {text: fixed(ticks[name], 3)});
      box.append(el("div", {className: "weight"}, [el("span", {className: "name", text: name}),
        el("input", {type: "range", key: `weight ${name}`, min: 0.01, max: 1, step: 0.01, value: ticks[name], "aria-label": `weight of ${name}`,
          onchange: (event) => set({ticks: reweighed(ticks, name, +event.target.value)})}), shown]));
    }
    if (!even) box.append(el("button", {type: "button", text: "equal weights", onclick: () => set({ticks: equalWeights(Object.keys(ticks))})}));
  }
  keepSliders(box, run);
  box.append(el("h3", {text: "YAML"}));
  const yaml = yamlOf(run, ticks);
  if (yaml) box.append(el("button", {type: "button", text: "copy the YAML", onclick: (event) => copy(yaml, event.currentTarget)}));
  box.append(yaml ? el("pre", {id: "explorer-yaml", text: yaml, tabIndex: 0})
    : el("p", {className: "soft", text: "write the page with `--pool` for the YAML of any ticks"}));
}

// One weight is set, the others keep their proportions, and all sum to what they did.
function reweighed(ticks, name, value) {
  const sum = d3.sum(Object.values(ticks)), rest = sum - ticks[name];
  if (Object.keys(ticks).length === 1) return ticks;
  const own = Math.min(value, sum - 0.001);
  return Object.fromEntries(Object.entries(ticks).map(([other, weight]) =>
    [other, other === name ? own : weight * (sum - own) / rest]));
}

function expertsIn(run) {
  return [...new Set(mergesIn(run).flatMap((one) => one.x))].sort((a, b) => a - b).map((place) => run.experts[place]);
}

function startTicks(run, names) {
  const choices = run.panels.subsets.choices && run.panels.subsets.choices[state.group];
  if (choices && choices.best) return choices.best.weights;
  return equalWeights(names);
}

function keepSliders(box, run) {
  const base = baseOf(run), places = d3.range(run.targets.length).filter((place) =>
    place !== state.target && base && base.v[place] !== null && lawOf(run, state.group, place));
  if (places.length < 2 || places.length > 24) return;
  const details = el("details", {open: state.keeps.size > 0, className: "noprint"}, [el("summary", {text: "keep domains at least as good as…"})]);
  for (const place of places) {
    const values = mergesIn(run).map((one) => one.v[place]).filter((value) => value !== null), sign = run.targets[place].higher ? -1 : 1;
    const [low, high] = around([...values, base.v[place]], 0.02), limit = state.keeps.get(place);
    const shown = el("span", {text: limit === undefined ? "any" : fixed(limit)});
    details.append(el("div", {className: "weight"}, [el("span", {className: "name", text: run.targets[place].label}),
      el("input", {type: "range", key: `keep ${place}`, min: 0, max: 100, value: limit === undefined ? 100 : 100 * (sign > 0 ? (limit - low) / (high - low) : (high - limit) / (high - low)),
        "aria-label": `keep ${run.targets[place].label}`, onchange: (event) => {
          const share = +event.target.value / 100;
          if (share >= 1) state.keeps.delete(place);
          else state.keeps.set(place, sign > 0 ? low + share * (high - low) : high - share * (high - low));
          redraw(PANELS.find((one) => one.name === "subsets"));
        }}), shown]));
  }
  if (state.keeps.size) {
    const said = [...state.keeps].map(([place, limit]) => `--keep '${run.targets[place].name}${run.targets[place].higher ? ">=" : "<="}${limit.toFixed(4)}'`);
    details.append(el("p", {className: "soft", text: `the table holds what keeps them; as options: ${said.join(" ")}`}));
  }
  box.append(details);
}

// The config of all experts, of which the ticked ones are left, with their weights.
function yamlOf(run, ticks) {
  const pool = run.panels.subsets.pool, recipe = pool && pool.groups[state.group];
  const names = Object.keys(ticks).sort();
  if (!recipe || names.some((name) => !recipe.names.includes(name))) return null;
  const even = names.every((name) => Math.abs(ticks[name] * names.length - 1) < 1e-6);
  const before = recipe.config.models.length - recipe.names.length;
  const models = recipe.config.models.filter((_, i) => i < before || names.includes(recipe.names[i - before]))
    .map((model, i) => (i < before || even ? model
      : {...model, parameters: {...model.parameters, weight: +ticks[names[i - before]].toFixed(5)}}));
  return `# run from the folder ${JSON.stringify(pool.folder)}\n${yamlText({...recipe.config, models})}`;
}

// Mappings and lists in blocks; every text as JSON writes it, which YAML reads alike.
function yamlText(value, indent = "") {
  return Object.entries(value).map(([key, own]) => {
    if (Array.isArray(own))
      return `${indent}${key}:\n${own.map((one) => yamlText(one, `${indent}  `).replace(/^(\s*) {2}/, "$1- ")).join("")}`;
    if (own !== null && typeof own === "object") return `${indent}${key}:\n${yamlText(own, `${indent}  `)}`;
    return `${indent}${key}: ${JSON.stringify(own)}\n`;
  }).join("");
}

// The front between two domains: subsets that none beats on both.
const fronts = {a: null, b: null};
function front(box, run) {
  const places = d3.range(run.targets.length).filter((place) => lawOf(run, state.group, place));
  if (places.length < 3) return;
  const a = places.includes(fronts.a) ? fronts.a : places[1], b = places.includes(fronts.b) ? fronts.b : places[2];
  const choose = (key, now) => el("select", {key: `front ${key}`, "aria-label": `front, axis ${key}`, onchange: (event) => {
    fronts[key] = +event.target.value;
    redraw(PANELS.find((one) => one.name === "subsets"));
  }}, places.map((place) => el("option", {value: place, text: run.targets[place].label, selected: place === now})));
  box.append(el("h3", {text: "Front between two domains"}), el("div", {className: "bar noprint"}, [choose("a", a), "and", choose("b", b)]));
  const points = listedSubsets(run).map((one) => {
    const [first, second] = [a, b].map((place) => valueOf(run, one.weights, state.group, place));
    return first && second ? {...one, x: first.value, y: second.value} : null;
  }).filter(Boolean);
  if (!points.length) {
    box.append(el("p", {className: "soft", text: "no subset keeps the bounds and has both"}));
    return;
  }
  const [sx, sy] = [a, b].map((place) => (run.targets[place].higher ? -1 : 1));
  const best = points.filter((one) => !points.some((other) => sx * other.x <= sx * one.x && sy * other.y <= sy * one.y && (other.x !== one.x || other.y !== one.y)));
  const base = baseOf(run), x = d3.scaleLinear(around([...points.map((one) => one.x), ...(base ? [base.v[a]] : [])]), [0, 1]);
  const y = d3.scaleLinear(around([...points.map((one) => one.y), ...(base ? [base.v[b]] : [])]), [0, 1]);
  const place = el("div");
  box.append(place);
  const svg = frame(place, {width: widthOf(place, 760), height: 320, x, y, xLabel: run.targets[a].label, yLabel: run.targets[b].label, title: "front"});
  tip(svg.append("g").selectAll("circle").data(points).enter().append("circle").attr("class", "dot").attr("cx", (one) => x(one.x)).attr("cy", (one) => y(one.y))
    .attr("r", (one) => (best.includes(one) ? 4.5 : 2.5)).attr("fill", (one) => (best.includes(one) ? "var(--accent)" : "var(--soft)")).attr("fill-opacity", 0.7)
    .on("click", (one) => set({pin: one.weights, ticks: one.weights})), (one) => `${one.name}: ${fixed(one.x)}, ${fixed(one.y)}`);
  if (base) tip(svg.append("path").attr("d", d3.symbol(d3.symbolDiamond, 90)()).attr("transform", `translate(${x(base.v[a])},${y(base.v[b])})`).attr("fill", "var(--warn)"), "the base");
}
