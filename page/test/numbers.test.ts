/** The page's arithmetic against Python's. */

import assert from "node:assert/strict";
import { test } from "node:test";

import {
  frameAroundBox, frameAroundLandmarks, wideFrame, type Matrix,
} from "../src/geometry.ts";
import { faceOfLayers, merge, reachesEdge, showsFace, type Layer } from "../src/labels.ts";
import { assignOwners, extendOwners } from "../src/owners.ts";
import * as pictures from "../src/pictures.ts";
import { fromPlanes, pull, type Picture } from "../src/resample.ts";
import { landmarksOf, prepare } from "../src/yunet.ts";
import { agreement, bytes, cases, floats } from "./cases.ts";

const [height, width] = cases.group.shape;
const group: Picture<Uint8Array> = { width, height, channels: 3, data: bytes(cases.group) };

for (const { landmarks, box, side, place, ...expected } of cases.frames) {
  const kind = landmarks ? "landmarks" : "a box";
  test(`the frames of ${kind}, ${expected.frame.file}`, () => {
    const matrix = landmarks
      ? frameAroundLandmarks(landmarks, side)
      : frameAroundBox(box ?? [0, 0, 1, 1], side);
    const wide = wideFrame(matrix, side, place);
    // Of the wide frames' few and large pixels, more are rounded twice.
    for (const [found, stored, size, pixels, limit] of [
      [matrix, expected.matrix, side, expected.frame, 0.25],
      [wide, expected.wide_matrix, place.size, expected.wide, 0.4],
    ] as const) {
      found.forEach((value, i) => assert.ok(Math.abs(value - stored[i]) < 1e-9));
      const pulled = pull(group, stored, { width: size, height: size }, [0, 0, 0]);
      const [mean, largest] = differences(pulled.data, bytes(pixels));
      // OpenCV rounds places to 1/32 of a pixel, and colours once more where it shrinks first.
      assert.ok(mean < limit && largest <= 6, `differs by ${mean} on average, ${largest} at most`);
    }
  });
}

const { matrices, place, ids } = cases.scores;
const [rows, columns, channels] = cases.scores.scores.shape;
const scores: Picture<Float32Array> = {
  width: columns,
  height: rows,
  channels,
  data: floats(cases.scores.scores),
};
const size = { width: place.size, height: place.size };
const around = fromPlanes(floats(cases.scores.wide_scores), size);
const farther = fromPlanes(floats(cases.scores.far_scores), size);
const photo = { width: 190, height: 150 };
const all = cases.overlapping.classes.map((_, id) => id);

/** The frame at a matrix, and those around it. */
function layersAt(matrix: Matrix, outer: readonly Picture<Float32Array>[]): Layer[] {
  const layers: Layer[] = [{ scores, matrix, ids: all }];
  for (const each of outer) {
    const inner = layers[layers.length - 1];
    const outside = wideFrame(inner.matrix, inner.scores.width, place);
    layers.push({ scores: each, matrix: outside, ids });
  }
  return layers;
}

for (const [kind, outer] of [
  ["square", []], ["wide", [around]], ["far", [around, farther]],
] as const) {
  const stored = cases.scores.labels[kind];
  const faces = Object.values(matrices).map((matrix) =>
    faceOfLayers(layersAt(matrix, outer), photo),
  );
  Object.keys(matrices).forEach((name, i) => {
    test(`classes in the photo's pixels, ${kind}, ${name}`, () => {
      const share = agreement(merge([faces[i]], photo).labels, bytes(stored[name]));
      assert.ok(share > 0.995, `${share} agree`);
    });
  });
  test(`of several faces the nearest counts, ${kind}`, () => {
    const share = agreement(merge(faces, photo).labels, bytes(stored["merged"]));
    assert.ok(share > 0.995, `${share} agree`);
  });
}

test("whether labels reach an edge of the wide frame within the photo", () => {
  // Two channels of 8 x 8 pixels: background, and something where the function returns true.
  const layer = (something: (x: number, y: number) => boolean): Layer => {
    const data = Float32Array.from({ length: 128 }, (_, i) => {
      const pixel = i >> 1;
      return Number(something(pixel % 8, pixel >> 3) === (i % 2 === 1));
    });
    return {
      scores: { width: 8, height: 8, channels: 2, data }, matrix: [1, 0, 0, 0, 1, 0], ids: [0, 1],
    };
  };
  const photo = { width: 8, height: 8 };
  assert.equal(reachesEdge(layer((x, y) => x > 0 && x < 7 && y > 0 && y < 7), photo), false);
  assert.equal(reachesEdge(layer((x, y) => y === 7 && x > 1 && x < 5), photo), false);
  assert.equal(reachesEdge(layer((x, y) => y === 7 && x > 1 && x < 6), photo), true);
  assert.equal(reachesEdge(layer((_, y) => y === 7), { width: 8, height: 7 }), false);
});

test("whether a frame shows a face", () => {
  const classes = ["background", "skin", "hair"];
  const layer = (id: number, radius: number): Layer => {
    const data = Float32Array.from({ length: 64 * 64 * 3 }, (_, i) => {
      const pixel = Math.floor(i / 3);
      const inside = Math.hypot((pixel % 64) - 32, Math.floor(pixel / 64) - 35) < radius;
      return Number(i % 3 === (inside ? id : 0));
    });
    return {
      scores: { width: 64, height: 64, channels: 3, data }, matrix: [1, 0, 0, 0, 1, 0],
      ids: [0, 1, 2],
    };
  };
  assert.equal(showsFace(layer(1, 15), classes), true);
  assert.equal(showsFace(layer(1, 5), classes), false);
  assert.equal(showsFace(layer(2, 15), classes), false);
});

test("the owners of the pixels of people who overlap", () => {
  const { overlapping } = cases;
  const [height, width] = overlapping.photo.shape;
  const photo = { width, height, channels: 3, data: bytes(overlapping.photo) };
  const labels = bytes(overlapping.labels);
  const owners = assignOwners(photo, labels, overlapping.matrices, 512, overlapping.classes);
  const share = agreement(Uint8Array.from(owners), bytes(overlapping.owners), (i) => labels[i] > 0);
  assert.ok(share > 0.99, `${share} agree`);
  const stored = Int16Array.from(bytes(overlapping.owners), (owner) => (owner << 24) >> 24);
  const extended = Uint8Array.from(extendOwners(stored, photo));
  const alike = agreement(extended, bytes(overlapping.extended));
  assert.ok(alike > 0.995, `${alike} of the extended ones agree`);
});

test("what goes into the detector", () => {
  const input = prepare(group);
  assert.ok(input);
  assert.deepEqual([1, 3, input.height, input.width], cases.detector.input.shape);
  const [mean, largest] = differences(input.planes, floats(cases.detector.input));
  assert.ok(mean < 1e-4 && largest <= 1, `differs by ${mean} on average, ${largest} at most`);
});

test("what comes out of the detector", () => {
  const outputs = Object.entries(cases.detector.outputs).map(
    ([name, stored]) => [name, floats(stored)] as const,
  );
  const input = prepare(group);
  assert.ok(input);
  const found = landmarksOf(Object.fromEntries(outputs), input);
  assert.equal(found.length, cases.detector.landmarks.length);
  const [, largest] = differences(
    found.flat(2),
    cases.detector.landmarks.flat(2),
  );
  assert.ok(largest < 0.001, `differs by ${largest} at most`);
});

test("a photo too narrow for the detector", () => {
  const strip = { width: 900, height: 8, channels: 3, data: new Uint8Array(900 * 8 * 3) };
  assert.equal(prepare(strip), null);
});

test("what is shown and downloaded", () => {
  const map = Uint8Array.of(0, 1, 2, 3);
  const sight = Uint8ClampedArray.of(9, 9, 9, 255, 8, 8, 8, 255, 7, 7, 7, 255, 6, 6, 6, 255);
  const colours = [[0, 0, 0], [10, 20, 30], [40, 50, 60], [70, 80, 90]] as const;
  const over = pictures.overlay(map, colours, new Set([1, 3]));
  assert.deepEqual([...over], [0, 0, 0, 0, 10, 20, 30, 255, 0, 0, 0, 0, 70, 80, 90, 255]);
  assert.deepEqual(
    [...pictures.mask(map, new Set([2]))].filter((_, i) => i % 4 === 0),
    [0, 0, 255, 0],
  );
  assert.deepEqual(
    [...pictures.cutout(sight, Uint8Array.of(0, 100, 0, 255))],
    [0, 0, 0, 0, 8, 8, 8, 100, 0, 0, 0, 0, 6, 6, 6, 255],
  );
  assert.deepEqual(
    [...pictures.blended(sight, over, 0.5)],
    [9, 9, 9, 255, 9, 14, 19, 255, 7, 7, 7, 255, 38, 43, 48, 255],
  );
  assert.deepEqual(pictures.classesIn(Uint8Array.of(0, 3, 1, 3)), [1, 3]);
});

function differences(first: ArrayLike<number>, second: ArrayLike<number>): [number, number] {
  assert.equal(first.length, second.length);
  let [sum, largest] = [0, 0];
  for (let i = 0; i < first.length; i++) {
    const difference = Math.abs(first[i] - second[i]);
    sum += difference;
    largest = Math.max(largest, difference);
  }
  return [sum / first.length, largest];
}
