"use strict";
panel({
  name: "verdict",
  title: "Verdict",
  on: ["run"],
  picture: false,
  table: (data) => [["role", "merge", "value", "low", "high", "measured"],
    ...(data.lights || []).map((one) => [one.role, one.name, one.value, one.low, one.high, one.measured])],
  command: (data) => (data.measure && data.measure.command) || data.command || "",
  draw(box, data, run) {
    if (data.missing) {
      box.append(el("p", {className: "headline", text: `no verdict: ${data.missing}`}));
      const warned = list(data.warnings, "warnings");
      if (warned) box.append(warned);
      return;
    }
    box.append(el("p", {className: "headline", text: `${data.headline}${inNumbers(data)}`}));
    const higher = run.targets[0].higher, sign = higher ? -1 : 1;
    const base = data.lights.find((one) => isBase(one));
    box.append(el("div", {className: "lights"}, data.lights.map((one) => {
      const better = base ? sign * (base.value - one.value) : 0;
      const kind = isBase(one) || !base || better === 0 ? "even" : better > 0 ? "good" : "bad";
      const range = `${fixed(one.low)} to ${fixed(one.high)}`;
      const interval = one.expected !== null
        ? `${one.measured ? "measured" : "predicted"}; ${fixed(one.expected)} expected on items of this kind, 90 % ${range}`
        : one.measured ? "measured" : `predicted, 90 % on this text ${range}`;
      const against = base && !isBase(one)
        ? `${fixed(Math.abs(better))} ${better >= 0 ? "better" : "worse"} than the base` : "";
      return el("div", {className: `light ${kind}`}, [
        el("b", {text: one.role}),
        el("div", {className: "value", text: fixed(one.value)}),
        el("div", {className: "name", text: one.k ? one.experts : "the base"}),
        el("div", {className: "soft name", text: [one.how, interval].filter(Boolean).join("; ")}),
        against ? el("div", {className: "soft name", text: against}) : null,
      ]);
    })));
    box.append(...data.gains.map((one) => el("p", {text: gainText(one)})));
    for (const some of [list(data.sure, "notes"), list(data.harms, "warnings"), list(data.warnings, "warnings"), list(data.notes, "notes")])
      if (some) box.append(some);
    if (data.measure) box.append(...measureParts(data.measure));
    box.append(el("h3", {text: data.pays === false ? "YAML of the best merge, though merging does not pay" : "YAML"}));
    if (data.yaml) {
      const place = `run from the pool's folder, ${data.folder}/: `;
      box.append(el("p", {className: "soft"}, [place, el("code", {text: data.command})]));
      box.append(el("button", {text: "copy the YAML", type: "button", onclick: (event) => copy(data.yaml, event.currentTarget)}));
      box.append(el("pre", {text: data.yaml, tabIndex: 0}));
    } else box.append(el("p", {className: "soft", text: data.why_no_yaml}));
  },
});

// What the answer comes to, and by how much that is better than the base.
function inNumbers(data) {
  const chosen = data.lights.find((one) => one.role.includes("chosen"));
  const gain = data.gains.find((one) => one.over === "the base");
  if (!chosen || !chosen.k || !gain) return "";
  const said = `: ${fixed(chosen.value)}, ${fixed(Math.abs(gain.value))} ${gain.value >= 0 ? "better" : "worse"} than the base`;
  return gain.low === null ? said : `${said} (${signed(gain.low)} to ${signed(gain.high)}, paired, 90 %)`;
}

function gainText(one) {
  const said = `${fixed(Math.abs(one.value))} ${one.value >= 0 ? "better" : "worse"} than ${one.over} on this text`;
  if (one.low === null || one.chance === null) return said;
  return `${said}; on ${one.items ? "items" : "texts"} of this kind ${signed(one.low)} to ${signed(one.high)}`
    + ` (90 %, paired), better with a chance of ${chanceText(one.chance)}`;
}

function measureParts(one) {
  const time = one.seconds === null ? "" : `, about ${one.seconds < 120 ? `${Math.round(one.seconds)} s` : `${Math.round(one.seconds / 60)} min`}`;
  return [
    el("h3", {text: `To measure next: ${one.merges.length} merge${one.merges.length > 1 ? "s" : ""}${time}`}),
    list(one.merges, "notes"),
    one.command ? el("pre", {text: one.command, tabIndex: 0}) : null,
  ].filter(Boolean);
}

function isBase(one) {
  return one.k === 0;
}
