// Pointer, keys and buttons; and the beginning.

const pointers = new Map();
let moved = 0;
const spot = (event) => {
  const box = map.getBoundingClientRect();
  return { x: event.clientX - box.left, y: event.clientY - box.top };
};

map.addEventListener("pointerdown", (event) => {
  if (event.button) return;
  map.setPointerCapture(event.pointerId);
  pointers.set(event.pointerId, spot(event));
  if (pointers.size === 1) moved = 0;
});
map.addEventListener("pointermove", (event) => {
  if (!image) return;
  const now = spot(event), before = pointers.get(event.pointerId);
  if (!before) { hover(now); return; }
  if (pointers.size === 1) {
    moved += Math.hypot(now.x - before.x, now.y - before.y);
    if (moved > 3) {
      map.classList.add("moving");
      at("tip").hidden = true;
      pan(now.x - before.x, now.y - before.y);
    }
  } else {
    moved = Infinity;
    pinch(event.pointerId, now, before);
  }
  pointers.set(event.pointerId, now);
});
const pinch = (id, now, before) => {
  const other = [...pointers].find(([one]) => one !== id)[1];
  const apart = (spot) => Math.max(Math.hypot(spot.x - other.x, spot.y - other.y), 1);
  pan((now.x - before.x) / 2, (now.y - before.y) / 2);
  zoom(apart(now) / apart(before), (now.x + other.x) / 2, (now.y + other.y) / 2);
};
const release = (event) => {
  if (pointers.delete(event.pointerId) && image && event.type === "pointerup" && moved <= 3) {
    const { x, y } = spot(event);
    select(find(x, y));
  }
  if (!pointers.size) map.classList.remove("moving");
};
map.addEventListener("pointerup", release);
map.addEventListener("pointercancel", release);
map.addEventListener("pointerleave", () => {
  at("tip").hidden = true;
  at("place").textContent = "";
  if (hovered >= 0) { hovered = -1; draw(); }
});

const hover = ({ x, y }) => {
  const found = find(x, y), tip = at("tip");
  if (found !== hovered) { hovered = found; draw(); }
  map.classList.toggle("on", found >= 0);
  tip.hidden = found < 0;
  if (found >= 0) {
    tip.textContent = `${nameOf(found)} ${image.scores[found].toFixed(2)}`;
    const isRight = x + tip.offsetWidth + 20 > map.clientWidth;
    tip.style.transform = `translate(${isRight ? x - tip.offsetWidth - 10 : x + 14}px, ${Math.max(y - 30, 4)}px)`;
  }
  at("place").textContent = `x ${Math.floor(view.x + x / view.scale)}, y ${Math.floor(view.y + y / view.scale)} px`;
};

map.addEventListener("wheel", (event) => {
  event.preventDefault();
  if (!image) return;
  const { x, y } = spot(event);
  zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : event.ctrlKey ? 0.01 : 0.0018)), x, y);
}, { passive: false });

const KEYS = {
  "+": () => zoom(1.5), "=": () => zoom(1.5), "-": () => zoom(1 / 1.5), "0": fit,
  ArrowLeft: () => pan(80, 0), ArrowRight: () => pan(-80, 0), ArrowUp: () => pan(0, 80), ArrowDown: () => pan(0, -80),
  n: () => step(1), p: () => step(-1), Escape: () => select(-1),
};
map.addEventListener("keydown", (event) => {
  const act = KEYS[event.key] || KEYS[event.key.toLowerCase()];
  if (!act || !image || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  act();
});
at("closer").addEventListener("click", () => zoom(1.5));
at("farther").addEventListener("click", () => zoom(1 / 1.5));
at("fit").addEventListener("click", fit);
at("threshold").addEventListener("input", () => { at("threshold").dataset.moved = "yes"; setThreshold(); });
at("all").addEventListener("click", () => { hidden.clear(); update(); });
at("image").addEventListener("change", () => show(Number(at("image").value)));
new ResizeObserver(() => { if (image) { isWhole ? fit() : draw(); paintHistogram(); } }).observe(map);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { if (image) paintHistogram(); });

// ---- Begin

const begin = async () => {
  if (!("DecompressionStream" in window)) {
    at("picture").textContent = "This page needs a browser of 2023 or later.";
    return;
  }
  data.images.forEach((one, place) => {
    const choice = element("option", "", one.name);
    choice.value = place;
    at("image").append(choice);
  });
  at("choice").hidden = data.images.length < 2;
  fillNotes();
  await show(0);
  await new Promise(requestAnimationFrame); // it is drawn
  document.body.dataset.ready = "yes";
};

begin();
