// The image enlarged, its hole over it; strokes are painted here at once and sent as one message when the pointer is lifted.
function render({ model, el }) {
  const size = model.get("size");
  const make = (tag, className, parent, more = {}) => {
    const node = Object.assign(document.createElement(tag), more);
    node.className = className;
    parent.append(node);
    return node;
  };
  const root = make("div", "cgi-painter", el);
  const bar = make("div", "cgi-bar-of-tools", root);
  const tool = (name, text, title) => make("button", "cgi-tool", bar, { type: "button", textContent: text, title, name });
  const brush = tool("brush", "Brush", "Draw the hole with the mouse, a pen or a finger.");
  const erase = tool("erase", "Erase", "Take pixels out of the hole again.");
  const undo = tool("undo", "Undo", "The hole before the last change.");
  const clear = tool("clear", "Clear", "No hole.");
  const width = make("label", "cgi-width", bar, { title: "Diameter of brush and eraser in pixels of the image." });
  const range = make("input", "", width, { type: "range", min: 1, max: 24 });
  range.setAttribute("aria-label", "brush size in pixels");
  const count = make("output", "", width);

  const canvas = make("canvas", "cgi-canvas", root, { width: size, height: size, tabIndex: -1 });
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", "image with its hole; draw here, or use the number fields below");
  const context = canvas.getContext("2d");

  const form = make("form", "cgi-rectangle", root);
  const fields = ["left", "top", "width", "height"].map((name, i) => {
    const label = make("label", "", form, { textContent: name });
    return make("input", "", label, { type: "number", min: i < 2 ? 0 : 1, max: size, value: i < 2 ? size / 4 : size / 2, name });
  });
  make("button", "cgi-tool", form, { type: "submit", textContent: "Add rectangle", title: "Add this rectangle to the hole." });
  const message = make("div", "cgi-message", root);
  message.setAttribute("role", "status");

  const image = new Image();
  let hole = [];
  let last = null; // where the stroke was, in pixels of the image
  let hover = null;
  const rgb = [1, 3, 5].map((i) => parseInt(model.get("colour").slice(i, i + 2), 16));

  const paint = () => {
    context.clearRect(0, 0, size, size);
    if (image.complete && image.naturalWidth) context.drawImage(image, 0, 0);
    const pixels = context.getImageData(0, 0, size, size);
    for (let i = 0; i < hole.length; i++) {
      if (!hole[i]) continue;
      pixels.data.set([...rgb, 255], 4 * i);
    }
    if (hover) { // outline of the brush
      const r = model.get("brush") / 2;
      for (let y = 0; y < size; y++) for (let x = 0; x < size; x++) {
        const d = Math.hypot(x + 0.5 - hover[0], y + 0.5 - hover[1]);
        if (d <= r + 0.5 && d > r - 0.5) pixels.data.set([222, 143, 5, 255], 4 * (y * size + x));
      }
    }
    context.putImageData(pixels, 0, 0);
  };
  const dead = () => Boolean(el.closest(".jupyter-widgets-disconnected")); // what Jupyter marks when the kernel has gone
  const read = () => {
    hole = Array.from(model.get("hole"), (c) => c === "1");
    for (const [node, name] of [[brush, "brush"], [erase, "erase"]])
      node.setAttribute("aria-pressed", String(model.get("tool") === name));
    range.value = model.get("brush");
    count.textContent = `${model.get("brush")} px`;
    canvas.style.width = canvas.style.height = `${model.get("shown")}px`;
    message.textContent = dead()
      ? "The kernel was restarted or has ended: run the notebook's cells again."
      : model.get("message");
    message.classList.toggle("cgi-dead", dead());
    if (model.get("image") !== image.src) image.src = model.get("image");
    paint();
  };
  image.onload = paint;

  const at = (event) => {
    const box = canvas.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width * size, (event.clientY - box.top) / box.height * size];
  };
  const dab = ([cx, cy]) => {
    const r = Math.max(0.71, model.get("brush") / 2); // the smallest brush still takes the pixel under it
    const value = model.get("tool") === "brush";
    for (let y = Math.max(0, Math.floor(cy - r)); y < Math.min(size, cy + r); y++)
      for (let x = Math.max(0, Math.floor(cx - r)); x < Math.min(size, cx + r); x++)
        if (Math.hypot(x + 0.5 - cx, y + 0.5 - cy) <= r) hole[y * size + x] = value;
  };
  const stroke = (to) => {
    const from = last || to;
    const steps = Math.max(1, Math.ceil(2 * Math.hypot(to[0] - from[0], to[1] - from[1])));
    for (let i = 1; i <= steps; i++)
      dab([from[0] + (to[0] - from[0]) * i / steps, from[1] + (to[1] - from[1]) * i / steps]);
    last = to;
  };
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button || dead()) return read();
    canvas.setPointerCapture(event.pointerId);
    last = null;
    stroke(at(event));
    paint();
    event.preventDefault();
  });
  canvas.addEventListener("pointermove", (event) => {
    hover = at(event);
    if (last) for (const e of event.getCoalescedEvents?.().length ? event.getCoalescedEvents() : [event]) stroke(at(e));
    paint();
  });
  const finish = () => {
    if (!last) return;
    last = null;
    model.set("hole", hole.map((v) => (v ? "1" : "0")).join(""));
    model.save_changes();
  };
  canvas.addEventListener("pointerup", finish);
  canvas.addEventListener("pointercancel", finish);
  canvas.addEventListener("pointerleave", () => { hover = null; paint(); });

  const set = (name, value) => { model.set(name, value); model.save_changes(); };
  brush.addEventListener("click", () => set("tool", "brush"));
  erase.addEventListener("click", () => set("tool", "erase"));
  undo.addEventListener("click", () => dead() ? read() : model.send({ do: "undo" }));
  clear.addEventListener("click", () => dead() ? read() : model.send({ do: "clear" }));
  range.addEventListener("input", () => set("brush", Number(range.value)));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (dead()) return read();
    model.send({ do: "rectangle", box: fields.map((f) => (f.value === "" ? null : Number(f.value))) });
  });
  // Lab's shortcuts must not act on what is typed here
  for (const node of [form, range]) node.addEventListener("keydown", (event) => event.stopPropagation());

  const change = () => { if (!last) read(); }; // an echo does not disturb a stroke that is being drawn
  model.on("change", change);
  const watcher = new MutationObserver(read);
  requestAnimationFrame(() => {
    for (let node = el, i = 0; node && i < 3; node = node.parentElement, i++)
      watcher.observe(node, { attributes: true, attributeFilter: ["class"] });
  });
  read();
  return () => {
    model.off("change", change);
    watcher.disconnect();
  };
}

export default { render };
