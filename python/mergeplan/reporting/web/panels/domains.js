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
    const rows = data.targets.flatMap((place) => domainRows(run, place));
    const paired = rows.some((one) => one.half !== null), groups = data.groups && Object.values(data.groups);
    const texts = [paired
      ? `lines: 90 % on texts of this kind, paired by document (${d3.min(groups)} to ${d3.max(groups)} groups a domain)`
      : groups ? "no intervals on other texts: some domain has fewer than five documents or groups of them, or this page left them out"
        : "no intervals on other texts: the table does not hold what each document scored"];
    if (rows.some((one) => one.half === null && one.low !== null)) texts.push("of what is predicted, dashed: 90 % on this text alone");
    box.append(el("p", {className: "soft", text: texts.join("; ")}));
    const answer = answerOf(run);
    if (answer && !state.pin) box.append(el("p", {className: "soft", text: `${answerName(answer)}: ${answer.name}`}));
  },
});

function domainRows(run, place) {
  const target = run.targets[place], base = baseOf(run), sign = target.higher ? -1 : 1;
  if (!base || base.v[place] === null) return [];
  const merges = mergesIn(run).filter((one) => one.v[place] !== null && one.x.length);
  // The error of a mean over seeds is not told.
  const row = (name, some) => {
    const part = some[0].p && some[0].p[place];
    if (part) {
      const expected = part[0] - base.v[place];
      return {name: `${name}, predicted`, value: expected, half: null, low: expected - part[1], high: expected + part[1], predicted: true};
    }
    const half = some.length === 1 && some[0].e ? some[0].e[place] : null, value = d3.mean(some, (one) => one.v[place]) - base.v[place];
    return {name, value, half, low: half === null ? null : value - half, high: half === null ? null : value + half};
  };
  const rows = [], singles = merges.filter((one) => one.k === 1);
  const alone = (expert) => singles.filter((one) => run.experts[one.x[0]] === expert);
  const own = alone(target.name.split(":").pop());
  if (own.length) rows.push(row("its own expert", own));
  const best = singles.length ? singles.reduce((a, b) => (sign * b.v[place] < sign * a.v[place] ? b : a)) : null;
  if (best && !own.includes(best)) rows.push(row(`${run.experts[best.x[0]]} alone`, alone(run.experts[best.x[0]])));
  const answer = answerOf(run);
  const some = state.pin ? [["pinned", state.pin, state.group]] : answer ? [[answerName(answer), answer.weights, answer.group]] : [];
  for (const [name, weights, group] of some) {
    const found = valueOf(run, weights, group, place);
    // Of another size it is nothing beside this size's base.
    if (!found || run.groups[group].n_params !== run.groups[state.group].n_params) continue;
    rows.push(found.measured ? {...row(name, found.measured), strong: true}
      : {name: `${name}, predicted`, value: found.value - base.v[place], half: null, low: found.low - base.v[place],
        high: found.high - base.v[place], strong: true, predicted: true});
  }
  const most = d3.max(merges, (one) => one.k), whole = merges.filter((one) => one.k === most && one.k === run.groups[state.group].pool_size);
  if (whole.length) rows.push(row("all experts", whole));
  return rows;
}

// The verdict's merge, whatever method is in view.
function answerName(answer) {
  return answer.role.includes("chosen") ? "chosen" : "best merge";
}
