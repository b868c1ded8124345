"use strict";
panel({
  name: "options",
  title: "Options: one subset at several values",
  on: ["target"],
  table: (data) => [["scan", "subset", "option", "value", "measured"], ...data.scans.flatMap((scan) =>
    scan.points.map((point) => [scan.label, scan.subset.join("+"), scan.option, point.x, point.values[state.target]]))],
  draw(box, data, run) {
    const many = el("div", {className: "many"});
    box.append(many);
    for (const scan of data.scans.slice(0, 24)) {
      const points = scan.points.filter((point) => point.values[state.target] !== undefined);
      if (!points.length) continue;
      const name = scan.subset.length ? scan.subset.join("+") : `any ${scan.k}`;
      const small = el("div", {}, [el("h3", {text: `${name}, ${scan.label}`})]);
      many.append(small);
      const x = d3.scaleLinear(around(points.map((point) => point.x)), [0, 1]);
      const y = d3.scaleLinear(around(points.map((point) => point.values[state.target])), [0, 1]);
      const svg = frame(small, {width: widthOf(small, 400), height: 210, x, y, xLabel: scan.option, yLabel: run.targets[state.target].label, yTicks: 4, xTicks: points.map((point) => point.x)});
      svg.append("path").attr("d", d3.line().x((point) => x(point.x)).y((point) => y(point.values[state.target]))(points)).attr("fill", "none").attr("stroke", "var(--c0)");
      tip(svg.append("g").selectAll("circle").data(points).enter().append("circle").attr("cx", (point) => x(point.x)).attr("cy", (point) => y(point.values[state.target])).attr("r", 4).attr("fill", "var(--c0)"),
        (point) => `${scan.option} ${point.x}: ${fixed(point.values[state.target])}`);
    }
  },
});
