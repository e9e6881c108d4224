// Pictures with captions and colour bars, and a row of curves; updated in place.
function render({ model, el }) {
  const root = document.createElement("div");
  root.className = "cgi-screen";
  const empty = document.createElement("p");
  const pictures = document.createElement("div");
  pictures.className = "cgi-pictures";
  const charts = document.createElement("div");
  charts.className = "cgi-charts";
  root.append(empty, pictures, charts);
  el.append(root);

  const cell = () => {
    const figure = document.createElement("figure");
    const title = document.createElement("figcaption");
    title.className = "cgi-title";
    const image = document.createElement("img");
    const bar = document.createElement("div");
    bar.className = "cgi-bar";
    const note = document.createElement("div");
    note.className = "cgi-note";
    figure.append(title, image, bar, note);
    return figure;
  };

  const draw = () => {
    const view = model.get("view");
    empty.textContent = view.pictures.length ? "" : model.get("empty");
    empty.hidden = !empty.textContent;
    pictures.style.gridTemplateColumns = `repeat(${model.get("columns")}, ${model.get("side")}px)`;
    while (pictures.children.length > view.pictures.length) pictures.lastChild.remove();
    while (pictures.children.length < view.pictures.length) pictures.append(cell());
    view.pictures.forEach((p, i) => {
      const [title, image, bar, note] = pictures.children[i].children;
      title.textContent = p.title;
      if (image.getAttribute("src") !== p.src) image.src = p.src;
      image.alt = `${p.title}. ${p.note}`;
      image.style.width = image.style.height = `${model.get("side")}px`;
      note.textContent = p.note;
      bar.hidden = !p.scale;
      if (p.scale && bar.dataset.key !== JSON.stringify(p.scale)) {
        bar.dataset.key = JSON.stringify(p.scale);
        bar.title = p.scale.text;
        const colours = document.createElement("span");
        colours.className = "cgi-colours";
        colours.style.background = `linear-gradient(to right, ${view.heat})`;
        bar.replaceChildren(p.scale.low, colours, p.scale.high);
      }
    });
    if (charts.innerHTML !== view.charts) charts.innerHTML = view.charts;
  };
  draw();
  model.on("change", draw);
  return () => model.off("change", draw);
}

export default { render };
