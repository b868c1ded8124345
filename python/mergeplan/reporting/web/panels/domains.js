"use strict";
panel({
  name: "domains",
  title: "Domains: each by itself",
  on: ["group", "pin"],
  table(data, run) {
    return [["domain", "merge", "less the base", "90 % half width"], ...data.targets.flatMap((place) =>
      domainRows(run, place).map((one) => [run.targets[place].label, one.name, one.value, one.half]))];
  },
  draw(box, data, run) {
    const base = baseOf(run);
    if (!base) {
      box.append(el("p", {className: "soft", text: "the base was not measured: there is nothing to hold the domains against"}));
      return;
    }
    const many = el("div", {className: "many"});
    box.append(many);
    for (const place of data.targets) {
      const target = run.targets[place], rows = domainRows(run, place);
      if (base.v[place] === null || !rows.length) continue;
      const small = el("div", {}, [el("h3", {text: `${target.label}: base ${fixed(base.v[place])}`})]);
      many.append(small);
      bar(small, {rows, most: 400, left: 138, label: "less the base", unit: {higher: target.higher}});
    }
    const groups = data.groups && Object.values(data.groups);
    box.append(el("p", {className: "soft", text: groups
      ? `${d3.min(groups) < 5 ? "no paired intervals: under five groups of documents in a domain" : `lines: 90 % on texts of this kind, paired by document (${d3.min(groups)} to ${d3.max(groups)} groups a domain)`}; of what is predicted, dashed, 90 % on this text alone`
      : "no paired intervals: the table does not hold what each document scored; of what is predicted, dashed, 90 % on this text"}));
    const answer = answerOf(run);
    if (answer && !state.pin) box.append(el("p", {className: "soft", text: `${answerName(answer)}: ${answer.name}`}));
  },
});

function domainRows(run, place) {
  const target = run.targets[place], base = baseOf(run), sign = target.higher ? -1 : 1;
  if (!base || base.v[place] === null) return [];
  const merges = mergesIn(run).filter((one) => one.v[place] !== null && one.x.length);
  const row = (name, one) => {
    const half = one.e ? one.e[place] : null, value = one.v[place] - base.v[place];
    return {name, value, half, low: half === null ? null : value - half, high: half === null ? null : value + half};
  };
  const rows = [], singles = merges.filter((one) => one.k === 1);
  const own = singles.find((one) => run.experts[one.x[0]] === target.name.split(":").pop());
  if (own) rows.push(row("its own expert", own));
  const best = singles.length ? singles.reduce((a, b) => (sign * b.v[place] < sign * a.v[place] ? b : a)) : null;
  if (best && best !== own) rows.push(row(`${run.experts[best.x[0]]} alone`, best));
  const answer = answerOf(run);
  const some = state.pin ? [["pinned", state.pin, state.group]] : answer ? [[answerName(answer), answer.weights, answer.group]] : [];
  for (const [name, weights, group] of some) {
    const found = valueOf(run, weights, group, place);
    if (!found) continue;
    rows.push(found.measured ? {...row(name, found.measured), strong: true}
      : {name: `${name}, predicted`, value: found.value - base.v[place], half: null, low: found.low - base.v[place],
        high: found.high - base.v[place], strong: true, predicted: true});
  }
  const most = d3.max(merges, (one) => one.k), whole = merges.find((one) => one.k === most && one.k === run.groups[state.group].pool_size);
  if (whole) rows.push(row("all experts", whole));
  return rows;
}

// The verdict's merge, whatever method is in view.
function answerName(answer) {
  return answer.role.includes("chosen") ? "chosen" : "best merge";
}
