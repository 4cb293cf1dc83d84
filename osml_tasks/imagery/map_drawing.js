// What is shown of an image, where, and what is under the pointer.

const FEW = 4000; // outlines at once that get a dark edge, too
const STROKES_AT_ONCE = 400; // long paths take browsers longer than several short ones
const MANY = 8000; // detections at once that are drawn quicker
const DOT = 3, DOT_OF_MANY = 8; // CSS px: what is smaller is drawn as a dot
const GROUND = "#14181d"; // under what has no data
const REACH = 5; // CSS px from a line that a click still hits

const map = at("map"), pen = map.getContext("2d");
const hidden = new Set();
let image = null, threshold = 0, selected = -1, hovered = -1;
let isWhole = true; // the image fills the map, and does so when the window changes
const view = { x: 0, y: 0, scale: 1 }; // image px at the top left, CSS px for one of the image

const isShown = (i) => image.scores[i] >= threshold && !hidden.has(image.classes[i]);
const colourOf = (i) => data.classes[image.classes[i]].colour;
const nameOf = (i) => data.classes[image.classes[i]].name || "no class";

const fitScale = () => Math.min(map.clientWidth / image.width, map.clientHeight / image.height) * 0.96;
const fit = () => {
  isWhole = true;
  view.scale = fitScale();
  view.x = (image.width - map.clientWidth / view.scale) / 2;
  view.y = (image.height - map.clientHeight / view.scale) / 2;
  draw();
};
const zoom = (factor, x = map.clientWidth / 2, y = map.clientHeight / 2) => {
  const before = view.scale;
  isWhole = false;
  view.scale = Math.min(Math.max(before * factor, fitScale() / 4), Math.max(64, fitScale()));
  view.x += x / before - x / view.scale;
  view.y += y / before - y / view.scale;
  draw();
};
const pan = (x, y) => {
  isWhole = false;
  view.x -= x / view.scale;
  view.y -= y / view.scale;
  // Some of the image always stays in sight.
  const across = map.clientWidth / view.scale, down = map.clientHeight / view.scale;
  view.x = Math.min(Math.max(view.x, -0.9 * across), image.width - 0.1 * across);
  view.y = Math.min(Math.max(view.y, -0.9 * down), image.height - 0.1 * down);
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
  const x = (boxes[b] + boxes[b + 2]) / 2, y = (boxes[b + 1] + boxes[b + 3]) / 2;
  return [(x - view.x) * view.scale, (y - view.y) * view.scale];
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
    if (x < boxes[b] - reach || x > boxes[b + 2] + reach) continue;
    if (y < boxes[b + 1] - reach || y > boxes[b + 3] + reach) continue;
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
