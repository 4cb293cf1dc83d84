"use strict";
(async () => {
  const LEVELS = 6; // of width and opacity, by score
  const FEW = 4000; // outlines at once that get a dark edge, too
  const STROKES_AT_ONCE = 400; // long paths take browsers longer than several short ones
  const MANY = 8000; // detections at once that are drawn quicker
  const DOT = 3, DOT_OF_MANY = 8; // CSS px: what is smaller is drawn as a dot
  const GROUND = "#14181d"; // under what has no data
  const REACH = 5; // CSS px from a line that a click still hits
  const BARS = 48;

  const at = (id) => document.getElementById(id);
  const data = JSON.parse(at("data").textContent);
  const number = new Intl.NumberFormat("en").format;
  const element = (kind, kindOf, text) => {
    const made = document.createElement(kind);
    if (kindOf) made.className = kindOf;
    if (text !== undefined) made.textContent = text;
    return made;
  };

  // ---- What the page carries

  const unpack = async (text) => {
    const packed = Uint8Array.from(atob(text), (one) => one.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Response(stream).arrayBuffer();
  };
  const integers = async (text) => new Int32Array(await unpack(text));
  const places = async (text) => {
    const steps = await integers(text);
    const found = new Float32Array(steps.length);
    let sum = 0;
    for (let i = 0; i < steps.length; i++) found[i] = (sum += steps[i]) / data.stepsAPixel;
    return found;
  };

  // Detection i has strokes first[i] to first[i + 1]; stroke s has points start[s] to start[s + 1].
  const load = async (image) => {
    const backdrop = new Image();
    backdrop.src = image.backdrop;
    const [classes, scores, strokes, lengths, xs, ys] = await Promise.all([
      integers(image.classes), unpack(image.scores).then((bytes) => new Float32Array(bytes)),
      integers(image.strokes), integers(image.lengths), places(image.xs), places(image.ys), backdrop.decode(),
    ]);
    const count = classes.length;
    const first = new Int32Array(count + 1);
    for (let i = 0; i < count; i++) first[i + 1] = first[i] + strokes[i];
    const start = new Int32Array(lengths.length + 1);
    for (let s = 0; s < lengths.length; s++) start[s + 1] = start[s] + Math.abs(lengths[s]);
    const boxes = new Float32Array(4 * count);
    for (let i = 0; i < count; i++) {
      let left = Infinity, top = Infinity, right = -Infinity, bottom = -Infinity;
      for (let p = start[first[i]]; p < start[first[i + 1]]; p++) {
        left = Math.min(left, xs[p]); right = Math.max(right, xs[p]);
        top = Math.min(top, ys[p]); bottom = Math.max(bottom, ys[p]);
      }
      boxes.set([left, top, right, bottom], 4 * i);
    }
    let lowest = 0, highest = 1;
    for (const score of scores) { lowest = Math.min(lowest, score); highest = Math.max(highest, score); }
    const level = new Uint8Array(count);
    for (let i = 0; i < count; i++) level[i] = Math.floor((scores[i] - lowest) / (highest - lowest) * (LEVELS - 0.01));
    // Low scores first, so that high ones lie on top; like ones together, for they are drawn together.
    const order = Int32Array.from(classes.keys());
    order.sort((a, b) => level[a] - level[b] || classes[a] - classes[b] || scores[a] - scores[b] || a - b);
    const byScore = Int32Array.from(classes.keys()).sort((a, b) => scores[b] - scores[a] || a - b);
    return { ...image, backdrop, count, classes, scores, level, lengths, first, start, xs, ys, boxes, order, byScore,
      lowest, highest };
  };

  // ---- What is shown

  const map = at("map"), pen = map.getContext("2d");
  const hidden = new Set();
  let image = null, threshold = 0, selected = -1, hovered = -1;
  const view = { x: 0, y: 0, scale: 1 }; // image px at the top left, CSS px for one of the image

  const isShown = (i) => image.scores[i] >= threshold && !hidden.has(image.classes[i]);
  const colourOf = (i) => data.classes[image.classes[i]].colour;
  const nameOf = (i) => data.classes[image.classes[i]].name || "no class";

  const fitScale = () => Math.min(map.clientWidth / image.width, map.clientHeight / image.height) * 0.96;
  const fit = () => {
    view.scale = fitScale();
    view.x = (image.width - map.clientWidth / view.scale) / 2;
    view.y = (image.height - map.clientHeight / view.scale) / 2;
    draw();
  };
  const zoom = (factor, x = map.clientWidth / 2, y = map.clientHeight / 2) => {
    const before = view.scale;
    view.scale = Math.min(Math.max(before * factor, fitScale() / 4), Math.max(64, fitScale()));
    view.x += x / before - x / view.scale;
    view.y += y / before - y / view.scale;
    draw();
  };
  const pan = (x, y) => {
    view.x -= x / view.scale;
    view.y -= y / view.scale;
    // Some of the image always stays in sight.
    view.x = Math.min(Math.max(view.x, -0.9 * map.clientWidth / view.scale), image.width - 0.1 * map.clientWidth / view.scale);
    view.y = Math.min(Math.max(view.y, -0.9 * map.clientHeight / view.scale), image.height - 0.1 * map.clientHeight / view.scale);
    draw();
  };

  // ---- Drawing

  let isDue = false;
  const draw = () => {
    if (isDue) return;
    isDue = true;
    requestAnimationFrame(() => { isDue = false; paint(); });
  };

  const paint = () => {
    const density = window.devicePixelRatio || 1;
    const width = Math.round(map.clientWidth * density), height = Math.round(map.clientHeight * density);
    if (map.width !== width || map.height !== height) { map.width = width; map.height = height; }
    pen.setTransform(density, 0, 0, density, 0, 0);
    pen.clearRect(0, 0, map.clientWidth, map.clientHeight);
    if (!image) return;
    paintBackdrop();
    const seen = inSight();
    if (seen.outlines <= FEW) paintEdges(seen);
    paintDetections(seen);
    if (hovered >= 0 && hovered !== selected && isShown(hovered)) paintChosen(hovered, 2);
    if (selected >= 0 && isShown(selected)) paintChosen(selected, 3);
  };

  const paintBackdrop = () => {
    const { backdrop } = image, { x, y, scale } = view;
    const place = [-x * scale, -y * scale, image.width * scale, image.height * scale];
    pen.fillStyle = GROUND;
    pen.fillRect(...place);
    pen.imageSmoothingEnabled = scale * image.width / backdrop.naturalWidth < 6;
    pen.imageSmoothingQuality = "high";
    pen.drawImage(backdrop, ...place);
  };

  const inSight = () => {
    const { boxes, order } = image, { x, y, scale } = view;
    const right = x + map.clientWidth / scale, bottom = y + map.clientHeight / scale;
    const all = new Int32Array(order.length);
    let count = 0, outlines = 0;
    for (const i of order) {
      const b = 4 * i;
      if (boxes[b] > right || boxes[b + 2] < x || boxes[b + 1] > bottom || boxes[b + 3] < y || !isShown(i)) continue;
      all[count++] = i;
    }
    const list = all.subarray(0, count), least = (count > MANY ? DOT_OF_MANY : DOT) / scale;
    for (const i of list) if (isLarge(i, least)) outlines++;
    return { list, least, outlines };
  };

  const isLarge = (i, least) => {
    const b = 4 * i;
    return Math.max(image.boxes[b + 2] - image.boxes[b], image.boxes[b + 3] - image.boxes[b + 1]) >= least;
  };

  const trace = (i) => {
    const { first, start, lengths, xs, ys } = image, { x, y, scale } = view;
    for (let s = first[i]; s < first[i + 1]; s++) {
      const from = start[s], end = start[s + 1];
      if (end - from === 1) {
        const across = (xs[from] - x) * scale, down = (ys[from] - y) * scale;
        pen.moveTo(across + 4, down);
        pen.arc(across, down, 4, 0, 2 * Math.PI);
        continue;
      }
      pen.moveTo((xs[from] - x) * scale, (ys[from] - y) * scale);
      for (let p = from + 1; p < end; p++) pen.lineTo((xs[p] - x) * scale, (ys[p] - y) * scale);
      if (lengths[s] > 0) pen.closePath();
    }
  };

  const widthOf = (level) => 1.4 + 1.6 * level / (LEVELS - 1);
  const opacityOf = (level) => 0.55 + 0.45 * level / (LEVELS - 1);

  // A dark edge, so that a colour is seen on ground of the same colour.
  const paintEdges = ({ list, least }) => {
    pen.globalAlpha = 0.45;
    pen.strokeStyle = pen.fillStyle = "#000";
    pen.lineJoin = "round";
    for (let k = 0; k < list.length; k += STROKES_AT_ONCE) {
      pen.beginPath();
      for (const i of list.subarray(k, k + STROKES_AT_ONCE)) if (isLarge(i, least)) trace(i);
      pen.lineWidth = widthOf(image.level[list[k]]) + 2;
      pen.stroke();
    }
    pen.globalAlpha = 1;
  };

  const paintDetections = ({ list, least }) => {
    const { classes, level } = image, thin = list.length > MANY ? 0.6 : 1;
    pen.lineJoin = "miter";
    let begun = 0;
    const end = () => { if (begun) pen.stroke(); begun = 0; };
    for (let k = 0; k < list.length; k++) {
      const i = list[k], before = list[k - 1];
      if (!k || classes[i] !== classes[before] || level[i] !== level[before]) {
        end();
        pen.globalAlpha = opacityOf(level[i]);
        pen.strokeStyle = pen.fillStyle = colourOf(i);
        pen.lineWidth = thin * widthOf(level[i]);
      }
      if (isLarge(i, least)) {
        if (!begun) pen.beginPath();
        trace(i);
        if (++begun === STROKES_AT_ONCE) end();
      } else dot(i);
    }
    end();
    pen.globalAlpha = 1;
  };

  const dot = (i) => {
    const { boxes, level } = image, b = 4 * i;
    const isPoint = boxes[b] === boxes[b + 2] && boxes[b + 1] === boxes[b + 3];
    const least = (isPoint ? 4 : 1.5) + 1.5 * level[i] / (LEVELS - 1);
    const width = Math.max((boxes[b + 2] - boxes[b]) * view.scale * 0.6, least);
    const height = Math.max((boxes[b + 3] - boxes[b + 1]) * view.scale * 0.6, least);
    const [x, y] = middle(i);
    pen.fillRect(x - width / 2, y - height / 2, width, height);
  };

  const middle = (i) => {
    const { boxes } = image, b = 4 * i;
    return [((boxes[b] + boxes[b + 2]) / 2 - view.x) * view.scale, ((boxes[b + 1] + boxes[b + 3]) / 2 - view.y) * view.scale];
  };

  const paintChosen = (i, width) => {
    pen.beginPath();
    trace(i);
    if (!isLarge(i, DOT / view.scale)) {
      const [x, y] = middle(i);
      pen.moveTo(x + 7, y);
      pen.arc(x, y, 7, 0, 2 * Math.PI);
    }
    pen.lineJoin = "round";
    pen.fillStyle = colourOf(i);
    pen.globalAlpha = 0.25;
    pen.fill("evenodd");
    pen.globalAlpha = 1;
    for (const [colour, extra] of [["#000", 4], ["#fff", 2], [colourOf(i), 0]]) {
      pen.strokeStyle = colour;
      pen.lineWidth = width + extra;
      pen.stroke();
    }
  };

  // ---- Finding what is under the pointer: the smallest of what it is in or near

  const find = (across, down) => {
    const { boxes, count } = image, reach = REACH / view.scale;
    const x = view.x + across / view.scale, y = view.y + down / view.scale;
    let found = -1, smallest = Infinity;
    for (let i = 0; i < count; i++) {
      const b = 4 * i;
      if (x < boxes[b] - reach || x > boxes[b + 2] + reach || y < boxes[b + 1] - reach || y > boxes[b + 3] + reach) continue;
      const size = (boxes[b + 2] - boxes[b]) * (boxes[b + 3] - boxes[b + 1]);
      if (size < smallest && isShown(i) && isHit(i, x, y, reach)) { found = i; smallest = size; }
    }
    return found;
  };

  const isHit = (i, x, y, reach) => {
    const { first, start, lengths, xs, ys } = image;
    let isInside = false;
    for (let s = first[i]; s < first[i + 1]; s++) {
      const end = start[s + 1];
      for (let p = start[s], q = lengths[s] > 0 ? end - 1 : p; p < end; q = p++) {
        if (distance(x, y, xs[q], ys[q], xs[p], ys[p]) <= reach) return true;
        if (lengths[s] > 0 && ys[p] > y !== ys[q] > y && x < (xs[q] - xs[p]) * (y - ys[p]) / (ys[q] - ys[p]) + xs[p]) {
          isInside = !isInside;
        }
      }
    }
    return isInside;
  };

  const distance = (x, y, ax, ay, bx, by) => {
    const along = (bx - ax) ** 2 + (by - ay) ** 2;
    const share = along ? Math.min(Math.max(((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / along, 0), 1) : 0;
    return Math.hypot(x - ax - share * (bx - ax), y - ay - share * (by - ay));
  };

  // ---- The panel

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
    for (const [name, text] of [["pixels", `x ${left.toFixed(1)} to ${right.toFixed(1)}, y ${top.toFixed(1)} to ${bottom.toFixed(1)}`], ...known.rows]) {
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

  // ---- Pointer and keys

  const pointers = new Map();
  let moved = 0, isWhole = true;
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
      if (moved > 3) { map.classList.add("moving"); at("tip").hidden = true; isWhole = false; pan(now.x - before.x, now.y - before.y); }
    } else {
      moved = Infinity;
      isWhole = false;
      pinch(event.pointerId, now, before);
    }
    pointers.set(event.pointerId, now);
  });
  const pinch = (id, now, before) => {
    const other = [...pointers].find(([one]) => one !== id)[1];
    const factor = Math.hypot(now.x - other.x, now.y - other.y) / Math.max(Math.hypot(before.x - other.x, before.y - other.y), 1);
    pan((now.x - before.x) / 2, (now.y - before.y) / 2);
    zoom(factor, (now.x + other.x) / 2, (now.y + other.y) / 2);
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
  map.addEventListener("pointerleave", () => { at("tip").hidden = true; at("place").textContent = ""; if (hovered >= 0) { hovered = -1; draw(); } });

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
    isWhole = false;
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
    isWhole = event.key === "0" || (isWhole && "npEscape".includes(event.key));
    act();
  });
  at("closer").addEventListener("click", () => { isWhole = false; zoom(1.5); });
  at("farther").addEventListener("click", () => { isWhole = false; zoom(1 / 1.5); });
  at("fit").addEventListener("click", () => { isWhole = true; fit(); });
  at("threshold").addEventListener("input", () => { at("threshold").dataset.moved = "yes"; setThreshold(); });
  at("all").addEventListener("click", () => { hidden.clear(); update(); });
  at("image").addEventListener("change", () => { isWhole = true; show(Number(at("image").value)); });
  new ResizeObserver(() => { if (image) { isWhole ? fit() : draw(); paintHistogram(); } }).observe(map);

  // ---- Begin

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
})();
