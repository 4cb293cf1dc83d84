// Beside the map: counts, scores, classes, and what is known of a detection. All that a model wrote is text.

const BARS = 48;

const number = new Intl.NumberFormat("en").format;
const element = (kind, kindOf, text) => {
  const made = document.createElement(kind);
  if (kindOf) made.className = kindOf;
  if (text !== undefined) made.textContent = text;
  return made;
};

const count = () => {
  const { classes, scores } = image;
  const byClass = new Array(data.classes.length).fill(0);
  let shown = 0;
  for (let i = 0; i < classes.length; i++) {
    if (scores[i] < threshold) continue;
    byClass[classes[i]]++;
    if (!hidden.has(classes[i])) shown++;
  }
  at("shown").textContent = number(shown);
  for (const row of at("classes").querySelectorAll("button")) {
    row.querySelector(".number").textContent = number(byClass[row.dataset.number]);
    row.setAttribute("aria-pressed", String(!hidden.has(Number(row.dataset.number))));
  }
  at("all").hidden = !hidden.size;
};

const update = () => {
  if (selected >= 0 && !isShown(selected)) select(-1);
  count();
  paintHistogram();
  draw();
};

const fillLegend = () => {
  const totals = new Array(data.classes.length).fill(0);
  for (const one of image.classes) totals[one]++;
  const numbers = [...totals.keys()].filter((one) => totals[one]).sort((a, b) => totals[b] - totals[a] || a - b);
  at("classes").replaceChildren(...numbers.map((one) => {
    const row = element("button");
    row.type = "button";
    row.dataset.number = one;
    const swatch = element("span", "swatch");
    swatch.style.backgroundColor = data.classes[one].colour;
    row.append(swatch, element("span", "name", data.classes[one].name || "no class"), element("span", "number"));
    row.addEventListener("click", () => {
      if (!hidden.delete(one)) hidden.add(one);
      update();
    });
    const item = element("li");
    item.append(row);
    return item;
  }));
};

const paintHistogram = () => {
  const chart = at("histogram"), density = window.devicePixelRatio || 1;
  chart.width = Math.round(chart.clientWidth * density);
  chart.height = Math.round(chart.clientHeight * density);
  const bars = new Array(BARS).fill(0), span = image.highest - image.lowest;
  for (let i = 0; i < image.count; i++) {
    if (hidden.has(image.classes[i])) continue;
    bars[Math.min(Math.floor((image.scores[i] - image.lowest) / span * BARS), BARS - 1)]++;
  }
  const most = Math.max(...bars, 1), brush = chart.getContext("2d"), each = chart.width / BARS;
  brush.fillStyle = getComputedStyle(chart).color;
  bars.forEach((bar, k) => {
    brush.globalAlpha = image.lowest + (k + 1) / BARS * span > threshold ? 0.7 : 0.18;
    const height = bar ? Math.max(bar / most * chart.height, density) : 0;
    brush.fillRect(k * each, chart.height - height, each - density, height);
  });
};

const fillNotes = () => {
  const notes = [];
  if (data.leftOut) notes.push(`The best ${number(data.features - data.unplaced - data.leftOut)} of ${
    number(data.features - data.unplaced)} detections are on this page.`);
  if (data.unplaced) notes.push(`${number(data.unplaced)} more have no place on an image, and are not drawn.`);
  at("notes").replaceChildren(...notes.map((note) => element("span", "", note)));
};

const select = async (i) => {
  selected = i;
  draw();
  const detail = at("detail");
  if (i < 0) {
    detail.replaceChildren(element("p", "hint", "Click a detection to see what is known of it."));
    return;
  }
  const from = image, block = Math.floor(i / data.knownInABlock);
  const known = JSON.parse(new TextDecoder().decode(await unpack(from.known[block])))[i % data.knownInABlock];
  if (selected !== i || image !== from) return; // another was chosen meanwhile
  const head = element("div", "head"), swatch = element("span", "swatch");
  swatch.style.backgroundColor = colourOf(i);
  head.append(swatch, element("span", "name", nameOf(i)), element("span", "number", image.scores[i].toFixed(2)));
  const [left, top, right, bottom] = image.boxes.subarray(4 * i, 4 * i + 4);
  const rows = element("dl");
  const pixels = `x ${left.toFixed(1)} to ${right.toFixed(1)}, y ${top.toFixed(1)} to ${bottom.toFixed(1)}`;
  for (const [name, text] of [["pixels", pixels], ...known.rows]) {
    const row = element("div");
    row.append(element("dt", "", name), element("dd", "", text));
    rows.append(row);
  }
  detail.replaceChildren(head, element("p", "at", known.position || "not on the globe"), rows);
};

// The next by score that is shown, or the one before.
const step = (way) => {
  const { byScore } = image;
  let k = selected >= 0 ? byScore.indexOf(selected) + way : way > 0 ? 0 : byScore.length - 1;
  while (k >= 0 && k < byScore.length && !isShown(byScore[k])) k += way;
  if (k < 0 || k >= byScore.length) return;
  const [x, y] = middle(byScore[k]);
  if (x < 0 || x > map.clientWidth || y < 0 || y > map.clientHeight) {
    isWhole = false;
    view.x += (x - map.clientWidth / 2) / view.scale;
    view.y += (y - map.clientHeight / 2) / view.scale;
  }
  select(byScore[k]);
};

const setThreshold = () => {
  const slider = at("threshold");
  threshold = Math.fround(slider.value); // as scores are kept
  at("least").textContent = `at least ${Number(slider.value).toFixed(2)}`;
  update();
};

const show = async (place) => {
  const loaded = await load(data.images[place]);
  if (at("image").value !== String(place)) return; // another was chosen meanwhile
  image = loaded;
  selected = hovered = -1;
  select(-1);
  at("picture").textContent = `${image.name} · ${number(image.width)} × ${number(image.height)} px`;
  at("placed").textContent = number(image.count);
  const slider = at("threshold"), kept = slider.dataset.moved ? slider.value : image.lowest;
  Object.assign(slider, { min: image.lowest, max: image.highest, step: (image.highest - image.lowest) / 100 });
  slider.value = kept;
  fillLegend();
  setThreshold();
  fit();
};
