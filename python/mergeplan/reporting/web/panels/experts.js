"use strict";
panel({
  name: "experts",
  title: "Experts: what each does",
  on: ["group", "target", "pin"],
  table(data, run) {
    const own = data.groups[state.group];
    if (!own) return [["expert"]];
    const domains = Object.keys(own.experts[0] ? own.experts[0].helps : {});
    return [["expert", "alone", "average change", "change here", ...domains],
      ...own.experts.map((one) => [one.name, one.alone, one.average, one.here, ...domains.map((name) => one.helps[name])])];
  },
  draw(box, data, run) {
    const own = data.groups[state.group];
    if (!own) {
      box.append(el("p", {className: "soft", text: "nothing is predicted of this method and size"}));
      return;
    }
    box.append(onlyMain(run));
    const higher = run.targets[0].higher, unit = {higher}, base = baseOf(run);
    const halves = el("div", {className: "many"});
    box.append(halves);
    const some = own.order.map((place) => own.experts.find((one) => one.name === own.names[place])).filter(Boolean);
    const strong = (one) => Boolean(state.pin && one.name in state.pin);
    const column = (title, rows) => {
      const place = el("div", {}, [el("h3", {text: title})]);
      halves.append(place);
      bar(place, {rows, label: title, unit, most: 400});
    };
    if (base && base.v[0] !== null)
      column("alone, less the base", some.map((one) => ({name: one.name, value: one.alone - base.v[0], strong: strong(one)})));
    column("on average, as it joins a merge", some.map((one) => ({name: one.name, value: one.average, strong: strong(one)})));
    column("in the best subset here", some.map((one) => ({name: one.name, value: one.here, strong: strong(one)})));
    box.append(el("p", {className: "soft", text: `${higher ? "above" : "below"} zero is better. The best subset of this method and size: ${bestHere(run)}.${own.drop.length ? ` Worse to have, there and on average: ${own.drop.join(", ")}.` : ""}`}));
    const domains = Object.keys(some[0] ? some[0].helps : {});
    const maps = el("div", {className: "halves"});
    box.append(maps);
    const add = (title, note, draw) => {
      const place = el("div", {}, [el("h3", {text: title}), el("p", {className: "soft", text: note})]);
      maps.append(place);
      draw(place);
    };
    if (domains.length > 1)
      add("Whom an expert helps", "change of each domain as it joins a merge, on average", (place) => matrix(place, {
        names: some.map((one) => one.name), columns: domains, values: some.map((one) => domains.map((name) => one.helps[name])),
        label: "expert by domain", lowGood: !higher}));
    const names = own.order.map((place) => own.names[place]);
    const sorted = (values) => own.order.map((i) => own.order.map((j) => (i === j ? null : values[i][j])));
    if (names.length > 1)
      add("Pairs, beyond what each expert gives any pair", `a pair less its two experts alone is ${signed(own.pairs_mean)} on average; ${higher ? "above" : "below"} zero two experts gain more from each other than from others`,
        (place) => matrix(place, {names, values: sorted(own.pairs), label: "pairs beyond their experts' own parts", lowGood: !higher, digits: 4}));
    if (own.cosines)
      add("Cosines of the experts' changes", "the same order; near zero they change the model in unlike directions",
        (place) => matrix(place, {names, values: sorted(own.cosines), label: "cosine", lowGood: false, digits: 2}));
    for (const size of data.geometry || []) geometryParts(box, size);
  },
});

function geometryParts(box, size) {
  for (const [kind, label] of [["layers", "layer"], ["kinds", "kind of module"]]) {
    const parts = size[kind];
    if (!parts.length) continue;
    box.append(el("h3", {text: `Weights by ${label}`}));
    const most = d3.max(parts.flatMap((part) => part.norms)) || 1;
    box.append(el("div", {className: "scroll"}, [el("table", {}, [
      el("thead", {}, [el("tr", {}, [el("th", {className: "name", text: label}), el("th", {text: "mean cosine"}), el("th", {text: "signs agree"}),
        ...size.experts.map((name) => el("th", {text: `‖${cutName(name, 10)}‖`, title: name}))])]),
      el("tbody", {}, parts.map((part) => el("tr", {}, [el("td", {className: "name", text: part.name}),
        el("td", {text: fixed(part.cosine, 3)}), el("td", {text: part.agreement === null ? "–" : `${(100 * part.agreement).toFixed(1)} %`}),
        ...part.norms.map((norm) => el("td", {text: +norm.toPrecision(3), title: `${Math.round(100 * norm / most)} % of the largest`}))])))])]));
  }
  box.append(el("p", {className: "soft", text: "by chance cosines are 0 and signs agree in 50 %"}));
}

// These panels are of what decides, whatever domain is in view.
function onlyMain(run) {
  return state.target === 0 ? "" : el("p", {className: "soft", text: `of ${run.targets[0].label}, which decides; the domain that is chosen above does not change this`});
}

function bestHere(run) {
  const choices = run.panels.subsets.choices && run.panels.subsets.choices[state.group];
  return choices && choices.best ? Object.keys(choices.best.weights).sort().join("+") : "none";
}
