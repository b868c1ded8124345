"use strict";
panel({
  name: "tuned",
  title: "Tuned: what the weights gain",
  on: ["run"],
  table: (data) => [["held against", "domain", "its loss", "gain", "low", "high"], ...data.rivals.flatMap((one) => [
    [one.name, data.aim, one.value, one.gain, one.low, one.high],
    ...Object.entries(one.domains).map(([name, own]) => [one.name, name, data.domains[name] + own[0], ...own])])],
  command: (data) => data.command || "mergeplan merge merge.yml OUT",
  draw(box, data) {
    const base = data.rivals[0];
    box.append(el("p", {className: "headline", text: `${data.aim}: ${fixed(data.value)} on documents that had no part in tuning`
      + (base ? `, ${fixed(Math.abs(base.gain))} ${base.gain >= 0 ? "better" : "worse"} than ${base.name}` : "")}));
    box.append(el("p", {className: "soft", text: `${data.n_weights} weights, by ${data.by.replace(",", " and ")}, of ${data.method}: ${data.points} points with slopes, `
      + `${data.passes.toFixed(1)} forward passes, ${Math.round(data.seconds)} s`
      + (data.penalty ? `; drawn towards equal weights by ${data.penalty}` : "")}));
    if (data.warnings.length) box.append(list(data.warnings, "warnings"));
    const halves = el("div", {className: "halves"});
    box.append(halves);
    const less = (name, [gain, low, high]) => ({name, value: turned(gain), low: turned(high), high: turned(low)});
    const whole = el("div", {}, [el("h3", {text: `${data.aim}: the tuned merge, less`})]);
    halves.append(whole);
    bar(whole, {rows: data.rivals.map((one) => less(one.name, [one.gain, one.low, one.high])), label: "nats per token; below zero is better", most: 560});
    tableBelow(whole, ["held against", "its loss", "gain", "low", "high"], data.rivals.map((one) => [one.name, one.value, one.gain, one.low, one.high]));
    const names = Object.keys(data.domains);
    if (names.length > 1 && data.rivals.length) domainBars(halves, data, names, less);
    box.append(el("p", {className: "soft", text: "lines: 90 % on texts of this kind, paired by document"}));
    leftOut(box, data.left_out);
    box.append(el("h3", {text: "YAML"}));
    if (data.yaml) {
      box.append(el("p", {className: "soft"}, [`run from the pool's folder, ${data.folder}/: `, el("code", {text: data.command})]));
      box.append(el("button", {text: "copy the YAML", type: "button", onclick: (event) => copy(data.yaml, event.currentTarget)}));
      box.append(el("pre", {text: data.yaml, tabIndex: 0}));
    } else box.append(el("p", {className: "soft", text: `merge.yml in the run's folder; ${data.why_no_yaml}`}));
  },
});

function turned(value) {
  return value === null ? null : -value;
}

function domainBars(box, data, names, less) {
  const against = data.rivals[Math.min(1, data.rivals.length - 1)];
  const place = el("div", {}, [el("h3", {text: `each domain: the tuned merge, less ${against.name}`})]);
  box.append(place);
  bar(place, {rows: names.map((name) => less(name, against.domains[name])), label: "nats per token; below zero is better", most: 560});
  tableBelow(place, ["domain", "its loss", ...data.rivals.map((one) => `gain over ${one.name}`)],
    names.map((name) => [name, data.domains[name], ...data.rivals.map((one) => one.domains[name][0])]));
}

function leftOut(box, some) {
  if (!some.length) return;
  box.append(el("h3", {text: "What could be left out"}));
  const margin = 1.6448536269514722;
  bar(box, {rows: some.map((one) => ({name: one.name, strong: one.free, value: one.cost,
    low: one.se === null ? null : one.cost - margin * one.se, high: one.se === null ? null : one.cost + margin * one.se})),
    label: "loss without it, nats per token", most: 560});
  const free = some.filter((one) => one.free).map((one) => `${one.what} ${one.name}`);
  box.append(el("p", {className: "soft", text: "the cheapest by the curvature, each left out alone and measured where steps are accepted, with nothing tuned again; "
    + (free.length ? `the texts cannot tell that anything is lost without: ${free.join(", ")}` : "the texts tell a loss by each")}));
  tableBelow(box, ["left out", "what", "cost", "its error", "free"], some.map((one) => [one.name, one.what, one.cost, one.se, one.free ? "yes" : "no"]));
}
