"use strict";
panel({
  name: "search",
  title: "Search: how the weights were found",
  on: ["run"],
  table: (data) => [["point", "kind", "forward passes", "seconds", "where slopes are taken", "where steps are accepted", "better than equal weights", "low", "high", "chosen"],
    ...data.steps.map((one) => [one.name, one.kind, one.tokens / data.pass_tokens, one.seconds, one.fitted, one.accepting, one.gain, one.low, one.high, one.chosen])],
  draw(box, data) {
    const steps = data.steps.map((one) => ({...one, passes: one.tokens / data.pass_tokens}));
    const equal = steps[1].accepting, known = steps.filter((one) => one.accepting !== null);
    const ends = known.flatMap((one) => (one.low === null ? [one.accepting] : [equal - one.low, equal - one.high, one.accepting]));
    const x = d3.scaleLinear(around([0, ...steps.map((one) => one.passes)], 0.03), [0, 1]), y = d3.scaleLinear(around(ends), [0, 1]);
    const svg = frame(box, {width: widthOf(box, 820), height: 320, x, y, left: 74, xLabel: "forward passes through the half that is tuned on", yLabel: `${data.aim}, where steps are accepted`, yTicks: 5});
    const points = known.filter((one) => one.kind === "point");
    svg.append("path").attr("d", d3.line().x((one) => x(one.passes)).y((one) => y(one.accepting))(points)).attr("fill", "none").attr("stroke", "var(--soft)").attr("stroke-dasharray", "3 3");
    for (const one of known) {
      if (one.low !== null && one.name !== "equal weights") svg.append("line").attr("x1", x(one.passes)).attr("x2", x(one.passes)).attr("y1", y(equal - one.low)).attr("y2", y(equal - one.high)).attr("stroke", "var(--c0)").attr("stroke-width", 1.6);
      tip(svg.append("circle").attr("cx", x(one.passes)).attr("cy", y(one.accepting)).attr("r", one.chosen ? 6 : 4)
        .attr("fill", one.kind === "point" ? "var(--c0)" : "var(--card)").attr("stroke", one.chosen ? "var(--ink)" : "var(--c0)").attr("stroke-width", 2),
        `${one.name}: ${fixed(one.accepting)}, ${signed(one.gain)} better than equal weights (${signed(one.low)} to ${signed(one.high)})`);
    }
    const labels = known.filter((one) => one.kind === "point" || one.chosen);
    // Above its line; what is chosen below, lest two lie on another.
    const labelY = (one) => (one.chosen ? Math.max(y(one.accepting), y(equal - (one.high === null ? one.gain : one.high))) + 15
      : Math.min(y(one.accepting), y(equal - (one.low === null ? one.gain : one.low))) - 8);
    for (const one of labels)
      svg.append("text").attr("class", "soft").attr("font-size", 11).attr("text-anchor", "middle").attr("x", x(one.passes)).attr("y", labelY(one)).text(one.chosen ? `${one.name}, chosen` : one.name);
    box.append(el("p", {className: "soft", text: `full dots: points with slopes; hollow: what a penalty towards equal weights leads to; lines: 90 % of the difference from equal weights, paired by document. It ended because ${data.stopped}.`}));
    tableBelow(box, ["point", "passes", "where slopes are taken", "where steps are accepted", "better than equal weights", "low", "high", "chosen"],
      steps.map((one) => [one.name, one.passes.toFixed(1), one.fitted, one.accepting, one.gain, one.low, one.high, one.chosen ? "yes" : ""]));
  },
});
