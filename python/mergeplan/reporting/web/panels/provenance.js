"use strict";
panel({
  name: "provenance",
  title: "Provenance",
  on: ["run"],
  picture: false,
  table: (data) => [["name", "value"], ...data.lines],
  draw(box, data) {
    box.append(el("div", {className: "scroll"}, [el("table", {}, [el("tbody", {}, data.lines.map(([name, value]) =>
      el("tr", {}, [el("td", {className: "name", text: name}), el("td", {className: "name", text: value})])))])]));
  },
});
