"use strict";
// Frames with axes, and what dots, bands and brackets look like, the same in all panels.

// A picture is as wide as its place, up to `most`: its text has then one size everywhere.
function widthOf(box, most) {
  return Math.max(280, Math.min(most, box.clientWidth || most));
}

function frame(box, {width = 760, height = 380, x, y, xLabel, yLabel, left = 62, right = 16,
  top = 12, bottom = 40, xTicks = null, yTicks = 6, title}) {
  const ticks = Math.floor(width / 60);
  const svg = d3.select(box).append("svg").attr("viewBox", `0 0 ${width} ${height}`)
    .style("max-width", `${width}px`)
    .attr("role", "img").attr("aria-label", title || `${yLabel} by ${xLabel}`);
  x.range([left, width - right]);
  y.range([height - bottom, top]);
  const across = d3.axisBottom(x), down = d3.axisLeft(y);
  if (xTicks) across.tickValues(thinned(xTicks, ticks)).tickFormat((value) => value);
  else across.ticks(Math.min(8, ticks));
  if (down.ticks) down.ticks(yTicks);
  svg.append("g").attr("class", "grid")
    .selectAll("line").data(y.ticks ? y.ticks(yTicks) : []).enter().append("line")
    .attr("x1", left).attr("x2", width - right).attr("y1", y).attr("y2", y);
  svg.append("g").attr("class", "axis").attr("transform", `translate(0,${height - bottom})`)
    .call(across);
  svg.append("g").attr("class", "axis").attr("transform", `translate(${left},0)`).call(down);
  svg.append("text").attr("class", "soft").attr("x", (left + width - right) / 2)
    .attr("y", height - 6).attr("text-anchor", "middle").call(named, xLabel, (width - left - right) / 6);
  svg.append("text").attr("class", "soft").attr("transform", "rotate(-90)")
    .attr("x", -(top + height - bottom) / 2).attr("y", 14).attr("text-anchor", "middle")
    .call(named, yLabel, (height - top - bottom) / 6);
  return svg;
}

// A text that has so much room; what is cut is its title.
function named(selection, text, most) {
  selection.text(cutName(text, Math.floor(most)));
  if (text.length > most) selection.append("title").text(plain(text));
}

function thinned(values, most) {
  const step = Math.ceil(values.length / Math.max(most, 2));
  return values.filter((_, i) => i % step === 0);
}

// Bounds with a margin, for a linear scale.
function around(values, share = 0.06) {
  const known = values.filter((value) => Number.isFinite(value));
  if (!known.length) return [0, 1];
  const [low, high] = d3.extent(known);
  const margin = share * (high - low) || Math.abs(high) * share || 1;
  return [low - margin, high + margin];
}

function tip(selection, text) {
  selection.append("title").text(typeof text === "function" ? (one) => plain(text(one)) : plain(text));
  return selection;
}

// Labels beside points of one column, moved apart so that none lies on another.
function apart(labels, gap = 13) {
  const sorted = [...labels].sort((a, b) => a.y - b.y);
  for (let i = 1; i < sorted.length; i++)
    sorted[i].y = Math.max(sorted[i].y, sorted[i - 1].y + gap);
  return sorted;
}

function bar(box, {rows, most = 420, row = 24, left = 130, right = 70, label, digits = 4, unit}) {
  // Bars about zero, with numbers; `rows` are {name, value, low, high, strong}.
  const height = rows.length * row + 30, width = widthOf(box, most);
  const ends = rows.flatMap((one) => [one.value, one.low, one.high, 0]);
  const x = d3.scaleLinear(around(ends, 0.04), [left, width - right]);
  const svg = d3.select(box).append("svg").attr("viewBox", `0 0 ${width} ${height}`)
    .style("max-width", `${width}px`).attr("role", "img").attr("aria-label", label);
  svg.append("line").attr("x1", x(0)).attr("x2", x(0)).attr("y1", 4)
    .attr("y2", rows.length * row + 4).attr("stroke", "var(--soft)");
  rows.forEach((one, i) => {
    const y = i * row + row / 2 + 4, good = unit && unit.higher ? one.value > 0 : one.value < 0;
    svg.append("text").attr("x", left - 6).attr("y", y + 4).attr("text-anchor", "end")
      .attr("font-weight", one.strong ? 700 : 400).text(cutName(one.name, 20))
      .append("title").text(plain(one.name));
    if (one.value === null) return;
    svg.append("rect").attr("x", Math.min(x(0), x(one.value))).attr("y", y - row / 4)
      .attr("width", Math.abs(x(one.value) - x(0))).attr("height", row / 2)
      .attr("fill", good ? "var(--good)" : "var(--bad)").attr("fill-opacity", 0.75);
    if (Number.isFinite(one.low) && one.low !== null && one.high !== null)
      svg.append("line").attr("x1", x(one.low)).attr("x2", x(one.high)).attr("y1", y)
        .attr("y2", y).attr("stroke", "var(--ink)").attr("stroke-width", 1.4)
        .attr("stroke-dasharray", one.predicted ? "3 2" : null);
    svg.append("text").attr("x", width - right + 6).attr("y", y + 4)
      .text(signed(one.value, digits));
  });
  svg.append("text").attr("class", "soft").attr("x", left).attr("y", height - 6).text(plain(label));
  return svg;
}

function cutName(text, most) {
  const whole = plain(text);
  return whole.length > most ? `${whole.slice(0, most - 1)}…` : whole;
}

// A matrix of numbers on a scale that diverges about zero, up to `most`; `marked(i, j)` outlines a cell.
function matrix(box, {names, columns = names, values, label, lowGood = true, digits = 3, size = 46, left = 110, most = null,
  ends = lowGood ? ["var(--good)", "var(--bad)"] : ["var(--bad)", "var(--good)"], marked = () => false}) {
  // The last column's name leans out to the right.
  const beyond = Math.max(10, 5.6 * Math.min(14, columns[columns.length - 1].length) - size / 2);
  const top = 78, width = left + columns.length * size + beyond;
  const height = top + names.length * 26 + 26;
  most = most || d3.max(values.flat().filter(Number.isFinite), Math.abs) || 1;
  // Cells keep their size: what is wider than its place is scrolled.
  const place = el("div", {className: "wide", tabIndex: 0});
  box.append(place);
  const svg = d3.select(place).append("svg").attr("viewBox", `0 0 ${width} ${height}`)
    .style("width", `${width}px`).attr("role", "img").attr("aria-label", label);
  columns.forEach((name, j) => {
    svg.append("text").attr("transform", `translate(${left + j * size + size / 2},${top - 6}) rotate(-40)`)
      .text(cutName(name, 14)).append("title").text(plain(name));
  });
  names.forEach((name, i) => {
    svg.append("text").attr("x", left - 6).attr("y", top + i * 26 + 17).attr("text-anchor", "end")
      .text(cutName(name, Math.floor(left / 6.8))).append("title").text(plain(name));
    columns.forEach((other, j) => {
      const value = values[i][j];
      if (value === null || value === undefined) return;
      const cell = svg.append("g").attr("transform", `translate(${left + j * size},${top + i * 26})`);
      cell.append("rect").attr("width", size - 1).attr("height", 25)
        .attr("fill", value < 0 ? ends[0] : ends[1])
        .style("fill-opacity", `calc(var(--cell) * ${Math.abs(value) / most})`);
      cell.append("text").attr("x", size / 2).attr("y", 17).attr("text-anchor", "middle")
        .attr("font-size", 11).text(fixed(value, digits).replace(/^(−?)0\./, "$1."));
      if (marked(i, j)) cell.append("rect").attr("x", 1).attr("y", 1).attr("width", size - 3).attr("height", 23)
        .attr("fill", "none").attr("stroke", "var(--ink)").attr("stroke-width", 2);
      tip(cell, `${name}, ${other}: ${signed(value, 5)}`);
    });
  });
  svg.append("text").attr("class", "soft").attr("x", 0).attr("y", height - 6).text(plain(label));
  return svg;
}

// The numbers of a picture as a table that opens below it.
function tableBelow(box, head, rows, digits = 4) {
  const text = (value) => (typeof value === "number" ? fixed(value, digits) : value === null || value === undefined ? "–" : value);
  box.append(el("details", {className: "noprint"}, [el("summary", {text: "as a table"}),
    el("div", {className: "scroll", tabIndex: 0}, [el("table", {}, [
      el("thead", {}, [el("tr", {}, head.map((name, i) => el("th", {className: i ? "" : "name", text: name})))]),
      el("tbody", {}, rows.map((row) => el("tr", {}, row.map((value, i) => el("td", {className: i ? "" : "name", text: text(value)})))))])])]));
}

// Matrices of experts by layer, one for each kind of module where a layer has several, and one of what
// lies outside the layers; `values` by expert and group.
function layerMaps(box, {experts, groups, parts, values, most, marked = () => false, ...more}) {
  const both = parts.some((one) => one.layer && one.kind), places = d3.range(groups.length);
  const inside = both ? places.filter((g) => parts[g].layer) : places;
  const kinds = both ? [...new Set(inside.map((g) => parts[g].kind))] : [null];
  const maps = kinds.map((kind) => [kind, inside.filter((g) => kind === null || parts[g].kind === kind),
    (g) => (kind === null ? groups[g] : parts[g].layer)]);
  const outside = both ? places.filter((g) => !parts[g].layer) : [];
  if (outside.length) maps.push(["outside the layers", outside, (g) => groups[g]]);
  const place = el("div", {className: maps.length > 1 ? "halves" : ""});
  box.append(place);
  for (const [title, some, name] of maps) {
    const one = el("div", {}, [title ? el("h3", {text: title}) : null].filter(Boolean));
    place.append(one);
    matrix(one, {names: some.map(name), columns: experts, values: some.map((g) => experts.map((_, i) => values[i][g])),
      most, marked: (row, i) => marked(i, some[row]), ...more});
  }
}
