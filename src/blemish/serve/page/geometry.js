// Where the pixels of an image lie on the screen while it is moved and enlarged.

export const MOST = 40;

// Scale and place at which an image of `size` fits into a stage of `width` × `height`.
export function fit(size, width, height) {
  const scale = Math.min(width / size[0], height / size[1]) * 0.98 || 1;
  return { scale, x: (width - size[0] * scale) / 2, y: (height - size[1] * scale) / 2 };
}

// The view enlarged by `factor` about the point (x, y) of the stage, which stays where it is.
export function zoomed(view, factor, x, y, least) {
  const scale = Math.max(least, Math.min(MOST, view.scale * factor));
  const ratio = scale / view.scale;
  return { scale, x: x - (x - view.x) * ratio, y: y - (y - view.y) * ratio };
}

// The view that shows a box of the image large, with its surroundings.
export function around(box, width, height, least) {
  const side = Math.max(box.width, box.height, 8);
  const scale = Math.max(least, Math.min(MOST, (0.5 * Math.min(width, height)) / side));
  return { scale, x: width / 2 - (box.x + box.width / 2) * scale, y: height / 2 - (box.y + box.height / 2) * scale };
}

export function toImage(view, x, y, size) {
  const clip = (value, most) => Math.max(0, Math.min(most, value));
  return [clip((x - view.x) / view.scale, size[0]), clip((y - view.y) / view.scale, size[1])];
}

// Corners of a shape, of a box all four.
export function corners(shape) {
  if (shape.kind !== "box") return shape.points;
  const [[x0, y0], [x1, y1]] = shape.points;
  return [[x0, y0], [x1, y0], [x1, y1], [x0, y1]];
}

export const path = (points, closed) => `M${points.map((point) => point.map((value) => value.toFixed(2)).join(" ")).join("L")}${closed ? "Z" : ""}`;
