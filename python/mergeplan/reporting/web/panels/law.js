"use strict";
panel({
  name: "law",
  title: "Law: what more experts bring",
  on: ["group", "target", "relative", "pin", "goal"],
  table(data, run) {
    const curve = data.curves[`${state.group}:${state.target}`];
    const rows = [["kind", "k", "experts", "value", "low", "high"]];
    if (curve) curve.mean.forEach((mean, i) => rows.push(["mean", i + 1, "", mean, curve.low[i], curve.high[i]]));
    mergesIn(run).forEach((one) => rows.push(["merge", one.k, nameOf(run, one), one.v[state.target], "", ""]));
    return rows;
  },
  draw(box, data, run) {
    const curve = data.curves[`${state.group}:${state.target}`];
    const halves = el("div", {className: "split"}), left = el("div"), right = el("div");
    halves.append(left, right);
    box.append(halves);
    drawCurve(left, curve, run);
    if (curve) drawGoal(right, curve, run);
    else right.append(el("p", {className: "soft", text: `no curve: ${data.missing[state.target] || "too few k were measured"}`}));
    const pinned = pinText(run);
    if (pinned) right.append(el("p", {className: "pin", text: pinned}));
    else right.append(el("p", {className: "soft noprint", text: "A click on a dot pins that merge in all panels."}));
    const warned = curve && list(curve.warnings, "warnings");
    if (warned) box.append(warned);
  },
});

function measuredText(found) {
  return found.measured.length > 1 ? `measured, the mean of ${found.measured.length} seeds` : "measured";
}

function pinText(run) {
  if (!state.pin) return "";
  const found = valueOf(run, state.pin);
  const name = Object.keys(state.pin).join("+");
  if (!found) return `pinned: ${name}`;
  const base = baseOf(run), same = mergesOf(run, state.pin, state.group), own = same.length === 1 && !same[0].p ? same[0] : null;
  let text = `pinned: ${name}: ${fixed(found.value)} ${found.measured ? measuredText(found) : `predicted, ${fixed(found.low)} to ${fixed(found.high)}`}`;
  if (base && base.v[state.target] !== null) {
    const half = own && own.e ? own.e[state.target] : null;
    const gap = found.value - base.v[state.target];
    text += `; ${signed(gap)} against the base`;
    if (half) text += ` (90 % on texts of this kind, paired: ${signed(gap - half)} to ${signed(gap + half)})`;
  }
  return text;
}

function drawCurve(box, curve, run) {
  const target = state.target, show = (value) => shownValue(run, value);
  const dots = mergesIn(run).filter((one) => one.v[target] !== null && one.k)
    .map((one) => ({one, k: one.k, y: show(one.v[target])}));
  const size = curve ? curve.pool_size : d3.max(dots, (dot) => dot.k) || 1;
  const base = baseOf(run), choices = run.panels.subsets && run.panels.subsets.choices;
  const chosen = target === 0 && choices ? choices[state.group] : null;
  const hollow = chosen ? chosen.by_size.filter((one) => one && !one.measured)
    .map((one) => ({k: Object.keys(one.weights).length, y: show(one.value), low: show(one.low), high: show(one.high), one})) : [];
  const values = [...dots.map((dot) => dot.y), ...hollow.flatMap((dot) => [dot.y])];
  if (curve) values.push(...curve.mean.map(show), ...curve.low.map(show), ...curve.high.map(show));
  if (base && base.v[target] !== null) values.push(show(base.v[target]));
  const x = d3.scaleLinear([0.4, size + 0.6], [0, 1]), y = d3.scaleLinear(around(values), [0, 1]).nice();
  const width = widthOf(box, 860), right = width < 560 ? 96 : 128;
  const svg = frame(box, {width, height: Math.min(420, Math.max(300, 0.6 * width)), x, y, right, xLabel: "experts merged, k", yLabel: width < 560 ? valueLabel(run).split(",")[0] : valueLabel(run),
    xTicks: d3.range(1, size + 1), title: "mean curve, its 90 % band on this text, and every measured merge"});
  if (curve) {
    const ks = d3.range(1, size + 1), band = d3.area().x((k) => x(k)).y0((k) => y(show(curve.low[k - 1]))).y1((k) => y(show(curve.high[k - 1])));
    if (curve.low.every((low) => low !== null))
      svg.append("path").attr("d", band(ks)).attr("fill", color(state.group)).style("fill-opacity", "var(--band)");
    svg.append("path").attr("d", d3.line().x((k) => x(k)).y((k) => y(show(curve.mean[k - 1])))(ks))
      .attr("fill", "none").attr("stroke", color(state.group)).attr("stroke-width", 2);
    for (const point of curve.points) {
      const half = 1.645 * (point.error || 0);
      if (half) svg.append("line").attr("x1", x(point.k)).attr("x2", x(point.k)).attr("y1", y(show(point.mean) - half))
        .attr("y2", y(show(point.mean) + half)).attr("stroke", color(state.group)).attr("stroke-width", 2);
      tip(svg.append("rect").attr("x", x(point.k) - 4).attr("y", y(show(point.mean)) - 4).attr("width", 8).attr("height", 8)
        .attr("fill", color(state.group)), `mean of ${point.n} of ${point.of} merges of ${point.k}: ${fixed(point.mean)}`);
    }
    if (!isRelative(run)) textBracket(svg, curve, y, x(size + 0.6) + 10, show);
  }
  envelope(svg, x, y, dots, hollow, run, chosen);
  const pinned = state.pin ? mergesOf(run, state.pin, state.group) : [];
  const marks = svg.append("g").selectAll("circle").data(dots).enter().append("circle").attr("class", "dot")
    .attr("cx", (dot) => x(dot.k)).attr("cy", (dot) => y(dot.y)).attr("r", (dot) => (pinned.includes(dot.one) ? 6 : 3))
    .attr("fill", (dot) => (pinned.includes(dot.one) ? "var(--accent)" : "var(--soft)")).attr("fill-opacity", (dot) => (dot.one.p ? 0.3 : 0.75))
    .on("click", (dot) => set({pin: weightsOf(run, dot.one), ticks: weightsOf(run, dot.one)}));
  tip(marks, (dot) => `${nameOf(run, dot.one)}${dot.one.seed ? `, seed ${dot.one.seed}` : ""}${dot.one.p ? ", on a part of the text" : ""}: ${fixed(dot.one.v[target])}`
    + (dot.one.d && dot.one.d[target] !== null ? `, ${signed(dot.one.d[target])} against the base` : ""));
  const labels = [];
  if (base && base.v[target] !== null) labels.push({y: y(show(base.v[target])), text: `base ${fixed(show(base.v[target]))}`, line: true});
  const single = bestOf(dots.filter((dot) => dot.k === 1), run);
  if (single) labels.push({y: y(single.y), text: `${nameOf(run, single.one)} alone`, line: false});
  for (const label of labels.filter((one) => one.line))
    svg.append("line").attr("x1", 62).attr("x2", width - right).attr("y1", label.y).attr("y2", label.y)
      .attr("stroke", "var(--soft)").attr("stroke-dasharray", "5 4");
  for (const label of apart(labels))
    svg.append("text").attr("x", width - right + (right > 100 ? 26 : 18)).attr("y", label.y + 4).attr("class", "soft").text(cutName(label.text, right > 100 ? 17 : 12))
      .append("title").text(plain(label.text));
  if (curve && !curve.no_trend) goalLine(svg, curve, x, y, run, width - right);
  box.append(el("div", {className: "legend"}, [
    "● measured merges", ...(dots.some((dot) => dot.one.p) ? ["● pale: on a part of the text"] : []), "■ measured means", "○ predicted best of its k (90 %)", "band: where the mean over all subsets lies, 90 % on this text",
  ].map((text) => el("span", {text}))));
}

function bestOf(dots, run) {
  const sign = run.targets[state.target].higher ? -1 : 1;
  return dots.length ? dots.reduce((a, b) => (sign * b.y < sign * a.y ? b : a)) : null;
}

// The best and the worst of each k: measured, and where all are predicted of those too.
function envelope(svg, x, y, dots, hollow, run, chosen) {
  const sign = run.targets[state.target].higher ? -1 : 1;
  const byK = d3.nest().key((dot) => dot.k).entries(dots).map((entry) => ({
    k: +entry.key, best: d3.min(entry.values, (dot) => sign * dot.y) * sign, worst: d3.max(entry.values, (dot) => sign * dot.y) * sign,
  })).sort((a, b) => a.k - b.k);
  for (const one of chosen ? chosen.sizes : []) {
    const own = byK.find((each) => each.k === one.k) || byK[byK.push({k: one.k, best: Infinity * sign, worst: -Infinity * sign}) - 1];
    const ends = [shownValue(run, one.lowest), shownValue(run, one.highest)].sort((a, b) => sign * (a - b));
    own.best = sign * Math.min(sign * own.best, sign * ends[0]);
    own.worst = sign * Math.max(sign * own.worst, sign * ends[1]);
  }
  byK.sort((a, b) => a.k - b.k);
  for (const key of ["best", "worst"])
    svg.append("path").attr("d", d3.line().x((one) => x(one.k)).y((one) => y(one[key]))(byK)).attr("fill", "none")
      .attr("stroke", "var(--soft)").attr("stroke-width", 1).attr("stroke-dasharray", "1 3");
  for (const dot of hollow) {
    if (Number.isFinite(dot.low)) svg.append("line").attr("x1", x(dot.k)).attr("x2", x(dot.k)).attr("y1", y(dot.low))
      .attr("y2", y(dot.high)).attr("stroke", "var(--accent)");
    tip(svg.append("circle").attr("class", "dot").attr("cx", x(dot.k)).attr("cy", y(dot.y)).attr("r", 5).attr("fill", "var(--card)")
      .attr("stroke", "var(--accent)").attr("stroke-width", 1.6).on("click", () => set({pin: dot.one.weights, ticks: dot.one.weights})),
    `${Object.keys(dot.one.weights).join("+")}: ${fixed(dot.one.value)} predicted, ${fixed(dot.one.low)} to ${fixed(dot.one.high)}`);
  }
}

// The text's error moves every loss alike: it is no doubt about the shape, and drawn apart.
function textBracket(svg, curve, y, at, show) {
  if (!curve.text_error) return;
  const middle = show(curve.mean[curve.mean.length - 1]), half = 1.645 * curve.text_error;
  const [low, high] = y.domain(), top = Math.min(middle + half, high), bottom = Math.max(middle - half, low);
  const line = svg.append("g").attr("stroke", "var(--warn)").attr("stroke-width", 1.5);
  line.append("line").attr("x1", at).attr("x2", at).attr("y1", y(top)).attr("y2", y(bottom));
  // Without a cap it goes on beyond the picture.
  for (const end of [middle + half, middle - half].filter((one) => one >= low && one <= high)) line.append("line").attr("x1", at - 4).attr("x2", at + 4).attr("y1", y(end)).attr("y2", y(end));
  tip(line, `other texts of this kind move all values together by ± ${fixed(half)} (90 %)`);
}

function goalOf(curve) {
  const targets = curve.targets;
  if (state.goal === null) return targets[Math.floor(targets.length / 3)];
  return targets.reduce((a, b) => (Math.abs(b.value - state.goal) < Math.abs(a.value - state.goal) ? b : a));
}

function goalLine(svg, curve, x, y, run, end) {
  const goal = goalOf(curve), at = y(shownValue(run, goal.value));
  const line = svg.append("g").attr("class", "handle");
  line.append("line").attr("x1", 62).attr("x2", end).attr("y1", at).attr("y2", at).attr("stroke", "var(--good)").attr("stroke-width", 1.6);
  line.append("line").attr("x1", 62).attr("x2", end).attr("y1", at).attr("y2", at).attr("stroke", "transparent").attr("stroke-width", 16);
  line.append("text").attr("x", end - 4).attr("text-anchor", "end").attr("y", at - 5).attr("fill", "var(--good)").style("fill", "var(--good)").text(`target ${fixed(shownValue(run, goal.value))}`);
  if (goal.k !== null) line.append("line").attr("x1", x(goal.k)).attr("x2", x(goal.k)).attr("y1", at).attr("y2", y.range()[0])
    .attr("stroke", "var(--good)").attr("stroke-dasharray", "3 3");
  const base = baseOf(run), shift = isRelative(run) ? base.v[state.target] : 0;
  // Each step draws the panel anew: where the hand is, is asked of the picture that is there now.
  line.call(d3.drag().on("drag", () => {
    const event = d3.event.sourceEvent, hand = event.changedTouches ? event.changedTouches[0] : event;
    const [, at] = d3.clientPoint(document.querySelector("#panel-law svg"), hand);
    set({goal: goalNear(curve, y.invert(at) + shift)});
  }));
}

function goalNear(curve, value) {
  return curve.targets.reduce((a, b) => (Math.abs(b.value - value) < Math.abs(a.value - value) ? b : a)).value;
}

function drawGoal(box, curve, run) {
  if (curve.no_trend) {
    box.append(el("h3", {text: "No number of experts"}), el("p", {text: `no k is told: ${curve.no_trend}`}));
    return;
  }
  const goal = goalOf(curve), place = curve.targets.indexOf(goal), base = baseOf(run);
  const sign = run.targets[state.target].higher ? -1 : 1;
  const byBase = base && base.v[state.target] !== null && sign * base.v[state.target] <= sign * goal.value;
  const slider = el("input", {type: "range", key: "goal", id: "goal", min: 0, max: curve.targets.length - 1, value: place, step: 1,
    "aria-label": "target", oninput: (event) => set({goal: curve.targets[+event.target.value].value})});
  const lines = [
    ["target", fixed(goal.value)],
    ["experts", goal.k === null ? "no number of this pool's" : `k = ${goal.k}`],
    ["crossing", goal.exact === null ? "never" : `k = ${fixed(goal.exact, 2)}`],
    ["90 % on this text", goal.low === null ? "–" : rangeText(goal)],
    ["sure (90 %)", goal.sure === null ? "no k" : `k = ${goal.sure}`],
    ["one random subset", chanceText(goal.chance)],
    ["cost", curve.costs && goal.k !== null ? `${+curve.costs[goal.k - 1].toPrecision(3)} ${curve.cost_unit}` : "–"],
  ];
  box.append(...[
    el("h3", {text: "A target, and what it asks for"}),
    el("div", {className: "bar"}, [slider, el("input", {type: "number", key: "goal-number", "aria-label": "target as a number", step: "any",
      value: goal.value.toFixed(4), onchange: (event) => event.target.value !== "" && set({goal: +event.target.value})})]),
    state.goal !== null && Math.abs(goal.value - state.goal) > 5e-5
      ? el("p", {className: "soft", text: `read at ${fixed(goal.value)}, the nearest of ${curve.targets.length} that the page has; \`mergeplan suggest --target\` takes any`}) : null,
    byBase ? el("p", {className: "warned", text: `the base reaches it by itself (${fixed(base.v[state.target])}): nothing is to be merged for this target`}) : null,
    el("table", {id: "goal-table"}, [el("tbody", {}, lines.map(([name, value]) => el("tr", {}, [
      el("td", {className: "name", text: name}), el("td", {text: value})])))]),
    el("p", {className: "soft", text: `${curve.words}, R² ${fixed(curve.r2, 5)} in-sample`}),
  ].filter(Boolean));
  if (curve.text_error)
    box.append(el("p", {className: "soft", text: `the text's own error, ± ${fixed(1.645 * curve.text_error)} (90 %), moves all values alike: the bracket at the right`}));
}

function rangeText(goal) {
  const end = (value) => (value === null || value === Infinity ? "never" : fixed(value, 2));
  return end(goal.low) === end(goal.high) ? `k = ${end(goal.low)}` : `k = ${end(goal.low)} to ${end(goal.high)}`;
}
