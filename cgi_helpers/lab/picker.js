// A button that opens the browser's file dialogue and sends the file in pieces of one megabyte.
const PIECE = 1 << 20;

function render({ model, el }) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "lm-Widget jupyter-widgets jupyter-button widget-button";
  button.style.width = "auto";
  const input = document.createElement("input");
  input.type = "file";
  input.hidden = true;
  const name = () => {
    button.textContent = model.get("label");
    button.title = model.get("hint");
    input.accept = model.get("accept");
  };
  button.addEventListener("click", () => input.click());
  input.addEventListener("change", async () => {
    const file = input.files[0];
    input.value = ""; // the same file may be chosen again
    if (!file) return;
    const most = model.get("most");
    if (file.size > most) {
      model.send({ refused: `${file.name} has ${Math.ceil(file.size / 1e6)} MB, more than ${Math.floor(most / 1e6)}: make it smaller first.` });
      return;
    }
    const parts = Math.max(1, Math.ceil(file.size / PIECE));
    const number = `${Date.now()}-${Math.random()}`;
    for (let part = 0; part < parts; part++) {
      const piece = await file.slice(part * PIECE, (part + 1) * PIECE).arrayBuffer();
      model.send({ number, part, parts, name: file.name }, undefined, [piece]);
    }
  });
  name();
  model.on("change", name);
  el.append(button, input);
  return () => model.off("change", name);
}

export default { render };
