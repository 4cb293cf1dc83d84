"use strict";
// What the page carries, and how it becomes columns of numbers.

const LEVELS = 6; // of width and opacity, by score

const at = (id) => document.getElementById(id);
const data = JSON.parse(at("data").textContent);

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
