// A play bar. It asks for frames as [run, index], so that the kernel can tell a late tick of an older run from a wish.
function render({ model, el }) {
  const root = document.createElement("div");
  root.className = "cgi-player";
  const button = document.createElement("button");
  button.type = "button";
  button.className = "cgi-tool";
  const range = document.createElement("input");
  range.type = "range";
  range.min = 0;
  range.title = "Step through the run: search iterations, then refinement steps.";
  range.setAttribute("aria-label", "frame");
  const count = document.createElement("output");
  root.append(button, range, count);
  el.append(root);

  let timer = null;
  let run = null;
  const most = () => model.get("most");
  const show = (index) => {
    range.value = index;
    count.textContent = `${range.value} of ${most()}`;
    button.textContent = timer ? "❚❚" : "▶";
    button.title = timer ? "Pause" : "Play the run";
    button.setAttribute("aria-label", timer ? "Pause" : "Play");
  };
  const halt = () => {
    clearInterval(timer);
    timer = null;
  };
  const ask = (index) => {
    if (index >= most()) halt();
    show(index);
    model.set("asked", [run, index]);
    model.save_changes();
  };
  const read = () => {
    if (run !== model.get("run") || !model.get("enabled")) halt();
    run = model.get("run");
    range.max = most();
    range.disabled = button.disabled = !model.get("enabled");
    show(model.get("frame"));
  };
  button.addEventListener("click", () => {
    if (timer) {
      halt();
      return show(Number(range.value));
    }
    timer = setInterval(() => ask(Number(range.value) + 1), model.get("interval"));
    ask(Number(range.value) >= most() ? 0 : Number(range.value));
  });
  range.addEventListener("input", () => {
    halt();
    ask(Number(range.value));
  });
  root.addEventListener("keydown", (event) => event.stopPropagation()); // Lab's shortcuts must not act here
  const seen = ["run", "enabled", "most", "frame"].map((name) => `change:${name}`).join(" ");
  read();
  model.on(seen, read);
  return () => {
    halt();
    model.off(seen, read);
  };
}

export default { render };
