"use strict";
panel({
  name: "trust",
  title: "Trust: how well it predicts",
  on: ["group", "target", "pin"],
  table(data, run) {
    const own = data.left_out && data.left_out[state.group];
    return [["experts", "measured", "predicted without it"],
      ...(own ? own.measured.map((value, i) => [own.x[i].map((place) => run.experts[place]).join("+") || "the base", value, own.predicted[i]]) : [])];
  },
  draw(box, data, run) {
    const halves = el("div", {className: "halves"});
    box.append(onlyMain(run), halves);
    const add = (title) => {
      const place = el("div", {}, [el("h3", {text: title})]);
      halves.append(place);
      return place;
    };
    const own = data.left_out && data.left_out[state.group];
    if (own) leftOut(add(`Left-out merges: R² ${fixed(own.r2, 3)}, typical error ${fixed(own.error)}`), own, run);
    const curve = run.panels.law && run.panels.law.curves[`${state.group}:0`];
    if (curve) residuals(add("Measured means less the curve, with their errors"), curve);
    const tails = (data.tails || []).find((one) => one.group === state.group);
    if (tails) {
      const place = add("Other forms of the tail: error at a k that is left out");
      place.append(el("table", {}, [el("tbody", {}, tails.tails.map((one) => el("tr", {}, [
        el("td", {className: "name", text: one.name}), el("td", {text: fixed(one.error, 5)})])))]));
    }
    if (data.winners) {
      const place = add(`Which merge is best over documents drawn again (${data.winners.draws.toLocaleString("en")} draws of the best ${data.winners.merges.length})`);
      place.append(el("table", {}, [el("tbody", {}, data.winners.merges.filter((one) => one.share > 0.004).map((one) => el("tr", {}, [
        el("td", {className: "name", text: `${one.name} by ${one.method}`}), el("td", {text: fixed(one.value)}), el("td", {text: chanceText(one.share)})])))]));
    }
    const links = (data.links && data.links[state.group]) || [];
    if (links.length) {
      const place = add("Does the loss speak for the score? Rank correlation over merges, 90 %");
      place.append(el("table", {}, [el("tbody", {}, links.map((one) => el("tr", {}, [
        el("td", {className: "name", text: `${one.loss} and ${one.score}, ${one.n} merges`}), el("td", {text: `${signed(one.rank, 2)} (${signed(one.low, 2)} to ${signed(one.high, 2)})`}),
        el("td", {text: `choosing by loss costs at most ${fixed(one.cost)}`})])))]));
    }
    if (data.held_back && data.held_back.length) {
      const place = add("On the other half of the documents");
      place.append(el("table", {}, [el("tbody", {}, data.held_back.map((one) => el("tr", {}, [
        el("td", {className: "name", text: one.name}), el("td", {text: fixed(one.value)}),
        el("td", {text: one.difference === undefined ? "" : `${signed(one.difference)} ± ${fixed(one.error)} against the base`})])))]));
    }
  },
});

function leftOut(box, own, run) {
  const every = [...own.measured, ...own.predicted], x = d3.scaleLinear(around(every), [0, 1]), y = d3.scaleLinear(around(every), [0, 1]);
  const svg = frame(box, {width: widthOf(box, 560), height: 330, x, y, xLabel: "predicted without it", yLabel: "measured", yTicks: 5});
  const [low, high] = x.domain();
  svg.append("line").attr("x1", x(low)).attr("y1", y(low)).attr("x2", x(high)).attr("y2", y(high)).attr("stroke", "var(--soft)").attr("stroke-dasharray", "4 4");
  const dots = own.measured.map((value, i) => ({value, at: own.predicted[i], k: own.k[i], names: own.x[i].map((place) => run.experts[place])}));
  const colorOf = (dot) => (dot.k ? "var(--c0)" : "var(--warn)");
  tip(svg.append("g").selectAll("circle").data(dots).enter().append("circle").attr("class", "dot").attr("cx", (dot) => x(dot.at)).attr("cy", (dot) => y(dot.value)).attr("r", 3.4)
    .attr("fill", (dot) => (dot.k === 1 ? "none" : colorOf(dot))).attr("stroke", colorOf).attr("fill-opacity", 0.7)
    .on("click", (dot) => dot.names.length && set({pin: equalWeights(dot.names), ticks: equalWeights(dot.names)})),
  (dot) => `${dot.names.join("+") || "the base"}: ${fixed(dot.value)} measured, ${fixed(dot.at)} predicted`);
  box.append(el("div", {className: "legend"}, [el("span", {text: "○ single experts"}), el("span", {text: "● merges; R² and error are of these"}), own.k.includes(0) ? el("span", {text: "● in yellow: the base"}) : null].filter(Boolean)));
}

function residuals(box, curve) {
  const points = curve.points.map((point) => ({...point, value: point.mean - curve.law[point.k - 1], half: 1.645 * (point.error || 0)}));
  const x = d3.scaleLinear([0.4, curve.pool_size + 0.6], [0, 1]);
  const y = d3.scaleLinear(around(points.flatMap((one) => [one.value - one.half, one.value + one.half, 0]), 0.15), [0, 1]);
  const width = widthOf(box, 560);
  const svg = frame(box, {width, height: 330, x, y, left: 74, xLabel: "k", yLabel: "mean less curve", yTicks: 5, xTicks: points.map((one) => one.k)});
  svg.append("line").attr("x1", 74).attr("x2", width - 16).attr("y1", y(0)).attr("y2", y(0)).attr("stroke", "var(--soft)").attr("stroke-dasharray", "4 4");
  for (const one of points) {
    svg.append("line").attr("x1", x(one.k)).attr("x2", x(one.k)).attr("y1", y(one.value - one.half)).attr("y2", y(one.value + one.half)).attr("stroke", "var(--c1)").attr("stroke-width", 2);
    tip(svg.append("circle").attr("cx", x(one.k)).attr("cy", y(one.value)).attr("r", 4).attr("fill", "var(--c1)"), `k = ${one.k}: ${signed(one.value, 5)}, ${one.n} of ${one.of} measured`);
  }
}
