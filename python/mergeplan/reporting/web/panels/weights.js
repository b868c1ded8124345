"use strict";
panel({
  name: "weights",
  title: "Weights: by expert and where",
  on: ["run"],
  table: (data) => [["expert", "group", "layer", "kind", "weight", "at a bound"], ...data.experts.flatMap((name, i) =>
    data.groups.map((group, g) => [name, group, data.parts[g].layer, data.parts[g].kind, data.weights[i][g], data.at_bound[i][g]]))],
  draw(box, data) {
    const most = d3.max(data.weights.flat(), Math.abs);
    const marked = (i, g) => data.at_bound[i][g], [low, high] = data.bounds;
    layerMaps(box, {experts: data.experts, groups: data.groups, parts: data.parts, values: data.weights, most, marked, digits: 2, label: "weight", ends: ["var(--c1)", "var(--c0)"]});
    box.append(el("p", {className: "soft", text: `weights from ${low} to ${high} were allowed`
      + (data.at_bound.flat().some(Boolean) ? "; what is outlined lies at such a bound, and its best may lie beyond" : ", and none lies at a bound")
      + `. Equal weights would be ${fixed(d3.mean(data.weights.flat()), 3)} each at the same sum.`}));
    tableBelow(box, ["group", ...data.experts, "sum"], data.groups.map((group, g) =>
      [group, ...data.experts.map((_, i) => data.weights[i][g]), d3.sum(data.experts, (_, i) => data.weights[i][g])]), 5);
  },
});
