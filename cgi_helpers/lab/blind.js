// Two pictures as buttons; the arrow keys choose too.
function render({ model, el }) {
  const root = document.createElement("div");
  root.style.cssText = "color: var(--jp-ui-font-color1, #222); font: 15px/1.4 var(--jp-ui-font-family, system-ui, sans-serif)";
  const question = document.createElement("p");
  const row = document.createElement("div");
  row.style.cssText = "display: flex; gap: 16px";
  const verdict = document.createElement("p");
  verdict.setAttribute("role", "status");
  const send = (right) => model.get("pictures")[0] && model.send({ right });
  const images = ["left", "right"].map((name, i) => {
    const button = document.createElement("button");
    button.setAttribute("aria-label", `The ${name} picture is real`);
    button.style.cssText = "padding: 4px; cursor: pointer; background: none; border: 1px solid var(--jp-border-color1, #bbb)";
    const image = document.createElement("img");
    image.style.cssText = "display: block; image-rendering: pixelated";
    button.append(image);
    button.addEventListener("click", () => send(i === 1));
    row.append(button);
    return image;
  });
  root.addEventListener("keydown", (event) => {
    const side = { ArrowLeft: 0, 1: 0, ArrowRight: 1, 2: 1 }[event.key];
    if (side === undefined || event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    event.stopPropagation(); // Lab's own shortcuts would move to another cell
    send(side === 1);
  });
  const draw = () => {
    question.textContent = model.get("question");
    verdict.textContent = model.get("verdict") || "\u00a0";
    row.hidden = !model.get("pictures")[0];
    images.forEach((image, i) => {
      image.src = model.get("pictures")[i] || "";
      image.width = image.height = model.get("side");
      image.alt = i ? "right picture" : "left picture";
    });
  };
  for (const name of ["pictures", "question", "verdict", "side"]) model.on(`change:${name}`, draw);
  root.append(question, row, verdict);
  el.append(root);
  draw();
}
export default { render };
