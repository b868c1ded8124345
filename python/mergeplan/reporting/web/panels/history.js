"use strict";
panel({
  name: "history",
  title: "History: merge by merge",
  on: [],
  table: (data) => [["merge", "method", "k", "value", "best so far", "tokens", "seconds"],
    ...data.steps.map((one) => [one.name, one.method, one.k, one.value, one.best, one.tokens, one.seconds])],
  draw(box, data, run) {
    const last = data.steps[data.steps.length - 1];
    box.append(el("p", {text: `${data.steps.length.toLocaleString("en")} merges, ${last.tokens.toLocaleString("en")} tokens or items, ${Math.round(last.seconds).toLocaleString("en")} s of merging and evaluating`}));
    const halves = el("div", {className: "halves"});
    box.append(halves);
    const steps = data.steps.map((one, i) => ({...one, at: i + 1}));
    const draw = (key, label, area) => {
      const place = el("div");
      halves.append(place);
      const known = steps.filter((one) => one[key] !== null);
      const x = d3.scaleLinear([1, steps.length], [0, 1]), y = d3.scaleLinear(area ? [0, d3.max(known, (one) => one[key])] : around(known.map((one) => one[key])), [0, 1]);
      const svg = frame(place, {width: widthOf(place, 560), height: 240, x, y, left: 74, xLabel: "merges measured", yLabel: label, yTicks: 5});
      svg.append("path").attr("d", d3.line().curve(d3.curveStepAfter).x((one) => x(one.at)).y((one) => y(one[key]))(known)).attr("fill", "none").attr("stroke", "var(--c0)").attr("stroke-width", 1.8);
      if (!area) tip(svg.append("g").selectAll("circle").data(steps.filter((one) => one.k && y(one.value) >= 12 && y(one.value) <= 200)).enter().append("circle").attr("cx", (one) => x(one.at)).attr("cy", (one) => y(one.value)).attr("r", 2.5).attr("fill", "var(--soft)"),
        (one) => `${one.name}: ${fixed(one.value)}`);
    };
    if (data.looks.length) looks(halves, data.looks, run);
    draw("best", `best so far, ${run.targets[0].label}`, false);
    draw("seconds", "seconds", true);
  },
});

function looks(box, some, run) {
  const place = el("div", {}, [el("h3", {text: "the best subset, as it was predicted after so many merges"})]);
  box.append(place);
  const x = d3.scaleLinear([0, some[some.length - 1].merges * 1.05], [0, 1]);
  const y = d3.scaleLinear(around(some.flatMap((one) => [one.low, one.high])), [0, 1]);
  const svg = frame(place, {width: widthOf(place, 560), height: 240, x, y, left: 74, xLabel: "merges measured", yLabel: run.targets[0].label, yTicks: 5});
  for (const one of some) {
    svg.append("line").attr("x1", x(one.merges)).attr("x2", x(one.merges)).attr("y1", y(one.low)).attr("y2", y(one.high)).attr("stroke", "var(--c0)").attr("stroke-width", 2);
    tip(svg.append("circle").attr("cx", x(one.merges)).attr("cy", y(one.value)).attr("r", 4).attr("fill", "var(--c0)"),
      `${one.merges} merges: ${one.name}, ${fixed(one.value)} (${fixed(one.low)} to ${fixed(one.high)}), the best with a chance of ${chanceText(one.chance)}`);
    if (one.chance !== null) svg.append("text").attr("class", "soft").attr("text-anchor", "end").attr("x", x(one.merges) - 5).attr("y", y(one.value) - 6).attr("font-size", 11).text(chanceText(one.chance));
  }
  place.append(el("p", {className: "soft", text: "lines: 90 % on this text; numbers: the chance that it is the best of all subsets on this text"}));
}
