"use strict";
panel({
  name: "effects",
  title: "Effects: what each expert does to each domain",
  on: ["run", "target"],
  table: (data, run) => [["domain", "expert", "group", "layer", "kind", "effect"], ...data.effects.flatMap((values, place) => data.experts.flatMap((name, i) =>
    data.groups.map((group, g) => [run.targets[place].label, name, group, data.parts[g].layer, data.parts[g].kind, values[i][g]])))],
  draw(box, data, run) {
    const halves = el("div", {className: "halves"}), {names, experts, groups, parts} = data;
    box.append(halves);
    const half = (title, rows, values, more) => {
      const place = el("div", {}, [el("h3", {text: title})]);
      halves.append(place);
      matrix(place, {names: rows, columns: names, values, label: "change of the loss, nats per token; below zero is better", ...more});
      tableBelow(place, [title, ...names], rows.map((name, i) => [name, ...values[i]]), 5);
    };
    const all = names.map((_, d) => d3.sum(data.by_expert, (row) => row[d]));
    half("Which expert helps which domain", [...experts, "all"], [...data.by_expert, all]);
    if (groups.length > 1) {
      half("Where it comes from, all experts together", groups, data.by_group, {left: 150});
      const values = data.effects[state.target], most = d3.max(values.flat(), Math.abs);
      box.append(el("h3", {text: `By expert and where: ${run.targets[state.target].label}`}));
      layerMaps(box, {experts, groups, parts, values, most, label: "change of the loss, nats per token"});
      tableBelow(box, ["group", ...experts, "all"], groups.map((group, g) =>
        [group, ...experts.map((_, i) => values[i][g]), d3.sum(values, (row) => row[g])]), 5);
    }
    box.append(el("p", {className: "soft", text: "the mean of a weight's slopes at the base and at the tuned weights, times the weight, on the documents that give slopes; the sum is what the merge does, to third order"}));
  },
});
